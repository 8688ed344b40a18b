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

static uint64_t part(const struct keep *keep)
{
    return (keep->setting.bytes + KEEP_PARTS - 1) / KEEP_PARTS; /* rounded up: they fit then */
}

/* drop_due: of the marks that are due only the last one tells something. */
static void drop_due(struct keep *keep)
{
    uint32_t due = 0;
    while (due + 1 < keep->mark_count &&
           keep->counted - keep->marks[due + 1].counted >= keep->setting.bytes)
        due++;
    keep->mark_count -= due;
    memmove(keep->marks, keep->marks + due, keep->mark_count * sizeof *keep->marks);
}

/* thin: marks of a smaller bound are nearer to each other than the present one needs. */
static void thin(struct keep *keep)
{
    uint32_t kept = 1;
    for (uint32_t i = 1; i < keep->mark_count; i++)
        if (keep->marks[i].counted - keep->marks[kept - 1].counted >= part(keep))
            keep->marks[kept++] = keep->marks[i];
    keep->mark_count = kept;
}

void keep_set(struct keep *keep, uint64_t seq, const struct retention_setting *setting)
{
    if (seq <= keep->seq)
        return;
    keep->seq = seq;
    keep->setting = *setting;
    if (setting->bytes == 0) {
        keep->mark_count = 0;
        keep->counted = 0;
        return;
    }
    if (keep->mark_count == 0)
        keep->marks[keep->mark_count++] = (struct keep_mark){.seq = seq};
    drop_due(keep);
    thin(keep);
}

void keep_count(struct keep *keep, uint64_t seq, uint64_t bytes)
{
    if (keep->setting.bytes == 0)
        return;
    keep->counted += bytes;
    const struct keep_mark *newest = &keep->marks[keep->mark_count - 1];
    if (keep->counted - newest->counted < part(keep))
        return;
    drop_due(keep);
    CHECK(keep->mark_count < KEEP_MARKS_MAX);
    keep->marks[keep->mark_count++] = (struct keep_mark){seq, keep->counted};
}

uint64_t keep_due(const struct keep *keep)
{
    uint64_t due = 0;
    for (uint32_t i = 0; i < keep->mark_count; i++)
        if (keep->counted - keep->marks[i].counted >= keep->setting.bytes)
            due = keep->marks[i].seq;
    return due;
}
