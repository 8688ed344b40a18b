/* keep.c: see keep.h. */
#include "gateway/chat/keep.h"

void keep_encode(uint8_t out[KEEP_BODY_BYTES], const struct retention_setting *setting)
{
    store_u64(out, setting->age_s);
    store_u64(out + 8, setting->bytes);
}

enum err keep_decode(struct retention_setting *setting, struct bytes body)
{
    if (body.size != KEEP_BODY_BYTES)
        return ERR_CORRUPT;
    setting->age_s = load_u64(body.data);
    setting->bytes = load_u64(body.data + 8);
    return OK;
}

static uint64_t part(uint64_t bound)
{
    return (bound + KEEP_PARTS - 1) / KEEP_PARTS; /* rounded up: they fit then */
}

static bool is_due(const struct keep *keep, const struct keep_mark *mark)
{
    return keep->counted - mark->counted >= keep->setting.bytes;
}

/* drop_due: of the marks that are due only the last one tells something, and nothing below it. */
static void drop_due(struct keep *keep)
{
    uint32_t due = 0;
    while (due + 1 < keep->mark_count && is_due(keep, &keep->marks[due + 1]))
        due++;
    keep->mark_count -= due;
    memmove(keep->marks, keep->marks + due, keep->mark_count * sizeof *keep->marks);
    keep->uncounted = keep->uncounted && !is_due(keep, &keep->marks[0]);
}

/* thin: marks of a smaller bound are nearer to each other than the present one needs. */
static void thin(struct keep *keep)
{
    uint32_t kept = 1;
    for (uint32_t i = 1; i < keep->mark_count; i++)
        if (keep->marks[i].counted - keep->marks[kept - 1].counted >= part(keep->setting.bytes))
            keep->marks[kept++] = keep->marks[i];
    keep->mark_count = kept;
}

void keep_set(struct keep *keep, uint64_t seq, const struct retention_setting *setting)
{
    if (seq <= keep->seq)
        return;
    keep->seq = seq;
    keep->setting = *setting;
    keep->since = 0;
    keep->uncounted = false;
    if (setting->bytes == 0) {
        keep->mark_count = 0;
        keep->counted = 0;
        return;
    }
    if (keep->mark_count == 0)
        keep->marks[keep->mark_count++] = (struct keep_mark){.seq = seq};
    keep->uncounted = keep->marks[0].seq > 1;
    drop_due(keep);
    thin(keep);
}

void keep_count(struct keep *keep, uint64_t seq, uint64_t bytes)
{
    if (keep->setting.bytes == 0)
        return;
    keep->counted += bytes;
    keep->since += bytes;
    const struct keep_mark *newest = &keep->marks[keep->mark_count - 1];
    if (keep->counted - newest->counted < part(keep->setting.bytes))
        return;
    drop_due(keep);
    CHECK(keep->mark_count < KEEP_MARKS_MAX);
    keep->marks[keep->mark_count++] = (struct keep_mark){seq, keep->counted};
}

uint64_t keep_due(const struct keep *keep)
{
    uint64_t due = 0;
    for (uint32_t i = 0; i < keep->mark_count; i++)
        if (is_due(keep, &keep->marks[i]))
            due = keep->marks[i].seq;
    return due;
}

/* ---- what was there before */

bool keep_down_begin(const struct keep *keep, struct keep_down *down)
{
    *down = (struct keep_down){.bound = keep->setting.bytes};
    if (!keep->uncounted)
        return false;
    down->below = keep->marks[0].seq;
    return true;
}

bool keep_down_count(struct keep_down *down, uint64_t seq, uint64_t bytes)
{
    uint64_t marked = down->mark_count == 0 ? 0 : down->marks[down->mark_count - 1].counted;
    if (down->bytes - marked >= part(down->bound)) {
        CHECK(down->mark_count < KEEP_PARTS);
        down->marks[down->mark_count++] = (struct keep_mark){seq, down->bytes};
        if (down->bytes >= down->bound)
            return true;
    }
    down->bytes += bytes;
    return false;
}

bool keep_counted(struct keep *keep, const struct keep_down *down)
{
    if (!keep->uncounted || keep->marks[0].seq != down->below || keep->setting.bytes != down->bound)
        return false;
    struct keep_mark marks[KEEP_PARTS + KEEP_MARKS_MAX];
    uint32_t count = 0;
    for (uint32_t i = down->mark_count; i > 0; i--)
        marks[count++] =
            (struct keep_mark){down->marks[i - 1].seq, down->bytes - down->marks[i - 1].counted};
    for (uint32_t i = 0; i < keep->mark_count; i++)
        marks[count++] =
            (struct keep_mark){keep->marks[i].seq, keep->marks[i].counted + down->bytes};
    keep->counted += down->bytes;
    keep->uncounted = false;
    uint32_t due = 0;
    while (due + 1 < count && is_due(keep, &marks[due + 1]))
        due++;
    keep->mark_count = count - due;
    CHECK(keep->mark_count <= KEEP_MARKS_MAX);
    memcpy(keep->marks, marks + due, keep->mark_count * sizeof *marks);
    return true;
}
