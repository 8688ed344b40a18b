/* device_test.c: see device_test.h. Two generations of writes of any length and place, the second
 * of them after a cut, half of it flushed, on one
 * disk or two; then cuts of every kind. */
#include "tests/crash/device_test.h"

#include "tests/crash/device.h"

#define BLOCKS    16u
#define SECTORS   (BLOCKS * DEVICE_BLOCK / DEVICE_SECTOR)
#define ROUNDS    2000u
#define WRITES    6u
#define PER_BLOCK (DEVICE_BLOCK / DEVICE_SECTOR)

/* disk: the newest flushed value of each sector; the newest one is what was written last. */
struct disk {
    struct device device;
    uint8_t flushed[SECTORS];
    uint8_t newest[SECTORS];
    uint8_t value;
    uint64_t split; /* sectors of the first disk */
    bool aligned;   /* writes are of whole blocks, and are torn between them only */
    uint64_t random;
};

static uint64_t draw(struct disk *disk, uint64_t below)
{
    disk->random = disk->random * 6364136223846793005ull + 1442695040888963407ull;
    return (disk->random >> 33) % below;
}

static void write_some(struct disk *disk)
{
    static uint8_t data[SECTORS * DEVICE_SECTOR];
    for (uint32_t i = 0; i < WRITES; i++) {
        uint64_t from = draw(disk, SECTORS);
        uint64_t end = from < disk->split ? disk->split : SECTORS;
        uint64_t count = 1 + draw(disk, end - from);
        if (disk->aligned) {
            from -= from % PER_BLOCK;
            count += PER_BLOCK - 1 - (count + PER_BLOCK - 1) % PER_BLOCK;
        }
        memset(data, ++disk->value, count * DEVICE_SECTOR);
        memset(disk->newest + from, disk->value, count);
        CHECK(device_write(&disk->device, from * DEVICE_SECTOR, data, count * DEVICE_SECTOR) == 0);
        if (draw(disk, WRITES) != 0)
            continue;
        uint64_t flushed = draw(disk, SECTORS);
        uint64_t begin = flushed < disk->split ? 0 : disk->split;
        end = flushed < disk->split ? disk->split : SECTORS;
        CHECK(device_flush(&disk->device, flushed * DEVICE_SECTOR) == 0);
        memcpy(disk->flushed + begin, disk->newest + begin, end - begin);
    }
}

/* compare: nothing is older than what was flushed; values ascend with time. all: nothing at all. */
static void compare(struct disk *disk, bool all)
{
    uint8_t sector[DEVICE_SECTOR];
    uint8_t before = 0;
    for (uint32_t i = 0; i < SECTORS; i++) {
        device_read(&disk->device, (uint64_t)i * DEVICE_SECTOR, sector, sizeof sector);
        CHECK(sector[0] >= disk->flushed[i] && sector[0] <= disk->newest[i]);
        CHECK(!all || sector[0] == disk->newest[i]);
        CHECK(!disk->aligned || i % PER_BLOCK == 0 || sector[0] == before);
        before = sector[0];
    }
}

static void round_of(struct disk *disk, bool blocks, bool aligned)
{
    disk->aligned = aligned;
    disk->split = (1 + draw(disk, BLOCKS)) * PER_BLOCK; /* BLOCKS: there is one only */
    device_init(&disk->device, SECTORS * DEVICE_SECTOR, disk->split * DEVICE_SECTOR);
    memset(disk->flushed, 0, sizeof disk->flushed);
    memset(disk->newest, 0, sizeof disk->newest);
    disk->value = 0;
    device_begin(&disk->device);
    write_some(disk);
    device_tear(&disk->device, blocks);
    size_t point = disk->device.record.count;
    enum device_survival survival = draw(disk, DEVICE_SURVIVAL_COUNT);
    (void)device_cut(&disk->device, point, survival, disk->random);
    compare(disk, survival == DEVICE_ALL);
    (void)device_cut(&disk->device, point, DEVICE_ALL, 0);
    write_some(disk);
    size_t second = device_keep(&disk->device);
    device_cut_again(&disk->device, point, DEVICE_ALL, 0, second, disk->random);
    compare(disk, disk->random % DEVICE_SURVIVAL_COUNT == DEVICE_ALL);
    device_deinit(&disk->device);
}

int device_test(void)
{
    static struct disk disk = {.random = 1};
    for (uint32_t i = 0; i < ROUNDS; i++)
        round_of(&disk, i % 2 == 1, i % 4 == 1);
    return 0;
}
