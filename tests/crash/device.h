/* device.h: a disk in memory, or two, that remember everything that was written to them, and
 * become, on demand, what a power cut at any moment could have left: of both at the same moment.
 * Flow:       serve.c serves it as a file, under a loop device and a file system; lab.c cuts; where
 *             nothing needs to be remembered a loop device may stand on its memory directly
 * Owns:       the content twice (what is served, what is safe at the newest cut) and the events
 * Invariants: an event is remembered before its request is answered, so that a mark made after an
 *             answer stands behind it; a write is safe once a flush of its disk was asked for after
 *             its answer; what is not safe is torn at sectors, but for each disk's first block,
 *             which is all there or not: ext4's superblock is two sectors under one checksum,
 *             written in place, and ext4 itself does not mount when they are torn (EBADMSG)
 * Failure:    device_write, device_flush: 0, or EIO where a test asked for it; out of memory traps
 * Bounds:     memory for twice the blocks touched and all bytes written (zeros are not kept) */
#ifndef TESTS_CRASH_DEVICE_H
#define TESTS_CRASH_DEVICE_H

#include "core/bytes.h"

#include <pthread.h>

#define DEVICE_SECTOR 512u
#define DEVICE_BLOCK  4096u
#define DEVICE_DISKS  2u
#define MARK_BYTES    224

enum device_event_kind { DEVICE_WRITE, DEVICE_FLUSH, DEVICE_MARK };

struct device_event {
    enum device_event_kind kind;
    uint64_t offset; /* FLUSH: any of the disk's */
    size_t size;
    uint8_t *data; /* WRITE; NULL: zeros. MARK: the text, with NUL */
};

struct device_log {
    struct device_event *events;
    size_t count;
    size_t capacity;
};

/* device_survival: which sectors written since the newest flush are there after the cut. */
enum device_survival {
    DEVICE_NONE,     /* none: the cache is gone */
    DEVICE_ALL,      /* all: the disk wrote in order and at once */
    DEVICE_RANDOM,   /* each sector of each write by chance: half of them */
    DEVICE_FEW,      /* … an eighth */
    DEVICE_MOST,     /* … seven eighths */
    DEVICE_TORN,     /* all but the last write, of which the first sectors */
    DEVICE_TORN_ANY, /* all but the last write, of which each sector by chance */
    DEVICE_SURVIVAL_COUNT
};

struct device {
    uint64_t bytes; /* of both */
    uint64_t split; /* the second disk begins here; bytes: there is none */
    int memory;     /* a descriptor of what is served, both disks */
    /* private */
    pthread_mutex_t mutex;
    uint8_t *served;
    uint8_t *safe;    /* everything of `record` before event safe_at, that of its disk */
    uint8_t *differs; /* per block: served is not safe */
    uint8_t *touched; /* per block: it is, or was, not all zeros */
    size_t safe_at[DEVICE_DISKS];
    struct device_log record;
    struct device_log after; /* written since the newest cut */
    struct device_log kept;
    bool recording;      /* into record; else into after */
    bool whole_blocks;   /* a cut tears between blocks of 4096 only */
    uint64_t fail_write; /* the n-th from now, once; 0: none */
    uint64_t fail_flush;
    uint64_t failed; /* how many were */
};

/* device_init: split: where the second disk begins; bytes: there is one only. */
void device_init(struct device *device, uint64_t bytes, uint64_t split);
void device_deinit(struct device *device);

/* ---- what the file systems see */
void device_read(struct device *device, uint64_t offset, uint8_t *out, size_t size);
int device_write(struct device *device, uint64_t offset, const uint8_t *data, size_t size);
/* device_flush: of the disk that has this offset. */
int device_flush(struct device *device, uint64_t offset);

/* ---- what the lab does */

/* device_command: one line of the control file: "fail write N", "fail flush N" (the N-th from now
 * answers EIO, once); "begin": what was recorded so far is safe and forgotten; anything else is a
 * mark. */
void device_command(struct device *device, const char *line);
/* device_begin: what was written so far is safe and forgotten; from now on it is remembered. */
void device_begin(struct device *device);
/* device_end: no longer: what an unmount writes is no part of it. */
void device_end(struct device *device);
/* device_cut: the power goes after the first `point` events of the recording. Points must not
 * descend. The newest mark before it comes back ("" if none). */
const char *device_cut(struct device *device, size_t point, enum device_survival survival,
                       uint64_t seed);
/* device_compare: what is served was written to directly: what differs is put back at the next cut.
 */
void device_compare(struct device *device);
/* device_keep: what was written since the newest cut is kept for device_cut_again. Returns how many
 * events that are. */
size_t device_keep(struct device *device);
/* device_cut_again: as device_cut with the same arguments, and then once more after the first
 * `second` kept events. */
void device_cut_again(struct device *device, size_t point, enum device_survival survival,
                      uint64_t seed, size_t second, uint64_t second_seed);
/* device_tear: from the next cut on writes are torn between sectors (false, as at the beginning),
 * or only between blocks. */
void device_tear(struct device *device, bool whole_blocks);
/* device_save: what is served, as a sparse file, to look into; the second disk behind the first. */
bool device_save(struct device *device, const char *path);

#endif
