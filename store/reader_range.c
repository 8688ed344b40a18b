/* reader_range.c: the second half of a RANGE: what was remembered on the way back is fetched, and
 * where nothing is known the segment is looked at.
 *
 * The window holds places of consecutive numbers, over several segments; `gathered`: SEEK looked
 * into every segment and nothing had to be left out, so that there is no more than the window says.
 * A round of disk reads fetches the first of them: neighbours within READ_GAP_BYTES with one read,
 * READ_OPS reads side by side, within the state's buffer. A record is taken only if its checksum,
 * conversation and number are right. */
#include "store/reader.h"

#include "core/logging.h"

/* ---- the window */

static void window_drop(struct read_state *state, uint32_t count)
{
    state->window_at += count;
    state->window_count -= count;
}

/* window_make_room: before what it has; the newest places go. */
static void window_make_room(struct read_state *state, uint32_t count)
{
    if (state->window_count > READ_WINDOW - count) {
        state->window_count = READ_WINDOW - count;
        state->gathered = false;
    }
    uint32_t at = READ_WINDOW - state->window_count;
    memmove(state->window + at, state->window + state->window_at,
            state->window_count * sizeof *state->window);
    state->window_at = at;
}

static struct read_place place_of(const struct read_state *state,
                                  const struct lane_segment *segment, const struct index_hit *hit)
{
    struct read_place place = {.seq = hit->seq,
                               .segment = segment->id,
                               .offset = hit->offset,
                               .size = hit->size,
                               .bound = state->hit_bounds};
    uint64_t end = segment->header.bytes;
    if (place.bound && place.offset < end && place.size > end - place.offset)
        place.size = (uint32_t)(end - place.offset);
    return place;
}

void read_remember(struct read_state *state, const struct lane_segment *segment)
{
    const struct log_read *read = state->read;
    uint32_t left = read->records_max - read->records;
    uint32_t count = 1;
    uint32_t most = left < READ_WINDOW ? left : READ_WINDOW;
    while (count < state->hit_count && count < most &&
           state->hits[count].seq == state->hits[count - 1].seq + 1)
        count++;
    bool next = state->window_count > 0 &&
                state->window[state->window_at].seq == state->hits[count - 1].seq + 1;
    if (!next) { /* not all of this segment's, or a gap */
        bool all = state->window_count == 0 && count == state->hit_count &&
                   (state->hit_bounds || segment->index != NULL) && count < SIDECAR_HITS;
        state->window_count = 0;
        state->gathered = state->gathered && all;
    }
    window_make_room(state, count);
    state->window_at -= count;
    state->window_count += count;
    for (uint32_t i = 0; i < count; i++)
        state->window[state->window_at + i] = place_of(state, segment, &state->hits[i]);
}

/* window_forget: a segment's places: it is lost. */
static void window_forget(struct read_state *state, const struct lane_segment *segment)
{
    while (state->window_count > 0 && state->window[state->window_at].segment == segment->id)
        window_drop(state, 1);
}

/* ---- COLLECT */

static bool served(const struct read_state *state)
{
    const struct log_read *read = state->read;
    return read->records >= read->records_max || state->seq_next > read->to_seq ||
           state->seq_next == 0;
}

/* run: places from i on that one disk read fetches, all of one segment; *bytes: what it reads. */
static uint32_t run(const struct read_state *state, uint32_t i, size_t room, size_t *bytes)
{
    const struct read_place *first = &state->window[state->window_at + i];
    uint32_t left = state->read->records_max - state->read->records - i;
    uint64_t base = align_down(first->offset, SEGMENT_BLOCK);
    uint64_t end = (uint64_t)first->offset + first->size;
    uint32_t count = 1;
    for (size_t taken = first->size; count < left && i + count < state->window_count; count++) {
        const struct read_place *place = first + count;
        uint64_t place_end = (uint64_t)place->offset + place->size;
        taken += place->size;
        if (place->segment != first->segment || place->seq > state->read->to_seq || taken > room ||
            place->offset <= place[-1].offset || place->offset > end + READ_GAP_BYTES ||
            align_up((size_t)(place_end - base), SEGMENT_BLOCK) > READ_BUFFER_BYTES)
            break;
        end = place_end > end ? place_end : end;
    }
    *bytes = align_up((size_t)(end - base), SEGMENT_BLOCK);
    return count;
}

/* round_segment: that of the window's i-th place, if it can be read without waiting. */
static struct lane_segment *round_segment(struct read_state *state, uint32_t i)
{
    struct log *log = state->log;
    uint32_t id = state->window[state->window_at + i].segment;
    uint32_t at = state->at;
    while (at < log->active && log->segments[at]->id < id)
        at++;
    struct lane_segment *segment = log->segments[at];
    return segment->id == id && read_ready(state, segment) == OK ? segment : NULL;
}

static bool sound(const struct lane_segment *segment, const struct read_place *place)
{
    return hit_sound(segment, place->offset, place->size);
}

/* fetch_more: further reads of the round; what does not go along now is fetched later. */
static void fetch_more(struct read_state *state, uint32_t i, size_t used, size_t room)
{
    struct log *log = state->log;
    const struct log_read *read = state->read;
    while (i < state->window_count && state->op_count < READ_OPS &&
           log->read_ops < LANE_READ_OPS_MAX && i < read->records_max - read->records) {
        const struct read_place *place = &state->window[state->window_at + i];
        struct lane_segment *segment = round_segment(state, i);
        size_t bytes;
        if (segment == NULL || !sound(segment, place) || place->seq > read->to_seq ||
            place->size > room)
            return;
        uint32_t count = run(state, i, room, &bytes);
        if (bytes > state->capacity - used ||
            read_issue(state, segment, segment->read_fd, align_down(place->offset, SEGMENT_BLOCK),
                       state->data + used, bytes) != OK)
            return;
        state->ops[state->op_count - 1].places = count;
        for (uint32_t end = i + count; i < end; i++)
            room -= state->window[state->window_at + i].size;
        used += bytes;
    }
}

/* fetch: begin a round of disk reads for what the window names, or end the read. */
static enum err fetch(struct read_state *state, struct lane_segment *segment)
{
    struct log_read *read = state->read;
    const struct read_place *place = &state->window[state->window_at];
    size_t room = buffer_room(&read->out);
    size_t least = place->bound ? place->size / 4 : place->size; /* see places.c's classes */
    size_t bytes;
    if (place->seq != state->seq_next) {
        read_gap(state, place->seq);
        return ERR_CLOSED;
    }
    if (!sound(segment, place)) {
        read_finish_missing(state, place->seq, place->seq);
        return ERR_CLOSED;
    }
    if (least > room && (read->records > 0 || !place->bound)) {
        read->size_needed = read->records == 0 ? place->size : 0;
        read_finish(state, read->records > 0 ? OK : ERR_FULL);
        return ERR_CLOSED;
    }
    uint32_t count = run(state, 0, room, &bytes);
    TRY(read_room(state, bytes));
    TRY(read_issue(state, segment, segment->read_fd, align_down(place->offset, SEGMENT_BLOCK),
                   state->data, bytes));
    state->ops[0].places = count;
    for (uint32_t i = 0; i < count; i++)
        room -= place[i].size < room ? place[i].size : room;
    fetch_more(state, count, bytes, room);
    state->phase = READ_DATA;
    return ERR_AGAIN;
}

static enum err collect_archive(struct read_state *state, struct lane_segment *segment)
{
    enum err err = read_archive_collect(state, segment);
    if (err != ERR_NOT_FOUND)
        return err;
    state->at++;
    return OK;
}

enum err read_step_collect(struct read_state *state)
{
    struct log *log = state->log;
    if (served(state) || state->at > log->active) {
        read_end(state);
        return ERR_CLOSED;
    }
    struct lane_segment *segment = log->segments[state->at];
    if (segment->archived)
        return collect_archive(state, segment);
    if (state->window_count == 0 && !state->gathered) {
        bool before;
        enum err err = read_look(state, segment, &before);
        if (err != OK && err != ERR_NOT_FOUND)
            return err;
        if (err == OK && state->hit_count > 0)
            read_remember(state, segment);
    }
    if (state->window_count == 0 || state->window[state->window_at].segment != segment->id) {
        state->at++;
        return OK;
    }
    enum err err = read_ready(state, segment);
    if (err == OK)
        return fetch(state, segment);
    if (err == ERR_NOT_FOUND) {
        window_forget(state, segment);
        state->at++;
        return OK;
    }
    return err;
}

/* ---- DATA */

static enum err damaged(struct read_state *state, const struct read_op *op,
                        const struct read_place *place)
{
    uint64_t suppressed;
    lane_count(state->log, METRIC_LOG_CORRUPT, 1);
    if (read_say(state->log, SAY_RECORD, &suppressed))
        log_event(LOG_ERROR, "log_record_damaged", LOG_U64("segment", place->segment),
                  LOG_U64("offset", place->offset), LOG_ERR(op->op.err),
                  LOG_U64("suppressed", suppressed), LOG_END);
    read_finish_missing(state, place->seq, place->seq);
    return ERR_CLOSED;
}

/* place_decode: what was fetched for a place. */
static enum err place_decode(const struct read_state *state, const struct read_op *op,
                             const struct read_place *place, struct bytes *encoded)
{
    struct log_record record;
    struct bytes data = read_op_bytes(op);
    size_t skip = (size_t)(place->offset - op->base);
    size_t taken;
    if (skip > data.size || (place->size > data.size - skip && !place->bound))
        return ERR_CORRUPT;
    size_t size = place->size < data.size - skip ? place->size : data.size - skip;
    TRY(record_decode(&record, bytes_of(data.data + skip, size), &op->segment->key, place->offset,
                      &taken));
    *encoded = bytes_of(data.data + skip, taken);
    bool right = (taken == place->size || place->bound) && record.kind != RECORD_LOST &&
                 record.seq == place->seq &&
                 conversation_id_equal(record.conversation, state->read->conversation);
    return right ? OK : ERR_CORRUPT;
}

/* take: ERR_CLOSED: the read is finished. */
static enum err take(struct read_state *state, const struct read_op *op)
{
    struct log_read *read = state->read;
    const struct read_place *place = &state->window[state->window_at];
    struct bytes encoded;
    if (place_decode(state, op, place, &encoded) != OK)
        return damaged(state, op, place);
    if (buffer_append(&read->out, encoded) != OK) {
        read->size_needed = read->records == 0 ? encoded.size : 0;
        read_finish(state, read->records > 0 ? OK : ERR_FULL);
        return ERR_CLOSED;
    }
    read->records++;
    state->seq_next = place->seq + 1;
    state->lost = false; /* what was before it would have shown as a gap */
    window_drop(state, 1);
    return OK;
}

enum err read_step_data(struct read_state *state)
{
    const struct log *log = state->log;
    const struct lane_segment *last = state->ops[state->op_count - 1].segment;
    for (uint32_t i = 0; i < state->op_count; i++)
        for (uint32_t n = 0; n < state->ops[i].places; n++)
            TRY(take(state, &state->ops[i]));
    while (log->segments[state->at] != last) /* what is between has been taken */
        state->at++;
    state->arrived = false;
    state->phase = READ_COLLECT;
    return OK;
}
