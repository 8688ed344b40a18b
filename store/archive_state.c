/* archive_state.c: see archive_state.h; the format: archive.c. */
#include "store/archive_state.h"

#define STATE_INCOMPLETE 1u
#define MARK_MARKED      1u

void archive_state_encode(uint8_t out[ARCHIVE_STATE_BYTES], const struct archive_state *state)
{
    store_u64(out, state->conversation.hi);
    store_u64(out + 8, state->conversation.lo);
    store_u64(out + 16, state->first_seq);
    store_u64(out + 24, state->last_seq);
    store_u64(out + 32, state->time_ms);
    store_u32(out + 40, state->count);
    store_u32(out + 44, state->incomplete ? STATE_INCOMPLETE : 0);
}

void archive_mark_encode(uint8_t out[ARCHIVE_MARK_BYTES], const struct archive_mark *mark)
{
    store_u64(out, mark->user.v);
    store_u32(out + 8, mark->device.v);
    store_u32(out + 12, mark->realm.v);
    store_u64(out + 16, mark->delivered);
    store_u64(out + 24, mark->read);
    store_u64(out + 32, mark->time_ms);
    store_u64(out + 40, mark->own);
    store_u64(out + 48, mark->lead);
    memcpy(out + 56, mark->highest.v, 16);
    store_u32(out + 72, mark->marked ? MARK_MARKED : 0);
    store_u32(out + 76, 0);
}

enum err archive_state_next(struct archive_state *state, struct bytes *content)
{
    const uint8_t *in = content->data;
    if (content->size == 0)
        return ERR_NOT_FOUND;
    if (content->size < ARCHIVE_STATE_BYTES)
        return ERR_CORRUPT;
    *state = (struct archive_state){
        .conversation = {load_u64(in), load_u64(in + 8)},
        .first_seq = load_u64(in + 16),
        .last_seq = load_u64(in + 24),
        .time_ms = load_u64(in + 32),
        .count = load_u32(in + 40),
        .incomplete = load_u32(in + 44) != 0,
        .marks = in + ARCHIVE_STATE_BYTES,
    };
    if (load_u32(in + 44) > STATE_INCOMPLETE || archive_state_bytes(state) > content->size ||
        (state->first_seq == 0) != (state->last_seq == 0) || state->first_seq > state->last_seq)
        return ERR_CORRUPT;
    *content = bytes_skip(*content, archive_state_bytes(state));
    return OK;
}

void archive_state_mark(struct archive_mark *mark, const struct archive_state *state, uint32_t at)
{
    const uint8_t *in = state->marks + (size_t)at * ARCHIVE_MARK_BYTES;
    *mark = (struct archive_mark){
        .user = {load_u64(in)},
        .device = {load_u32(in + 8)},
        .realm = {load_u32(in + 12)},
        .delivered = load_u64(in + 16),
        .read = load_u64(in + 24),
        .time_ms = load_u64(in + 32),
        .own = load_u64(in + 40),
        .lead = load_u64(in + 48),
        .marked = (load_u32(in + 72) & MARK_MARKED) != 0,
    };
    memcpy(mark->highest.v, in + 56, sizeof mark->highest.v);
}

struct log_record archive_mark_record(const struct archive_mark *mark,
                                      struct conversation_id conversation, uint8_t read[8])
{
    store_u64(read, mark->read);
    return (struct log_record){.realm = mark->realm,
                               .kind = RECORD_WATERMARK,
                               .conversation = conversation,
                               .seq = mark->delivered,
                               .sender = mark->user,
                               .device = mark->device,
                               .time_ms = mark->time_ms,
                               .body = bytes_of(read, 8)};
}

int archive_mark_order(const struct archive_mark *mark, struct user_id user,
                       struct device_id device)
{
    if (mark->user.v != user.v)
        return mark->user.v < user.v ? -1 : 1;
    if (mark->device.v != device.v)
        return mark->device.v < device.v ? -1 : 1;
    return 0;
}
