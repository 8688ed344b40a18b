/* reader.c: asynchronous reads. A read is a small state machine; each step looks at one segment and
 * either has what it needs in memory or waits for one disk read or for a segment to be loaded.
 *
 *   RANGE  SEEK       from the newest segment back to the one that holds the last record before, or
 *                     the first from, from_seq (a filter passes over segments without the
 *                     conversation); an archive that holds from_seq is tried first
 *          COLLECT    where the next records stand in this segment; none: the next segment
 *          DATA       neighbours are fetched with one disk read, checked, copied out; → COLLECT
 *   BACK   NEWEST     the conversation's newest number; then a RANGE that ends there or at to_seq
 *   FIND   PRINT      from the newest segment back: places with the key's fingerprint
 *          CANDIDATE  fetch one, compare the whole key
 *
 * In an archive, which stands in the place of its segments: reader_archive.c.
 *
 * Within a conversation sequence numbers ascend without gaps. A gap between what stands in the log,
 * or a record that fails its checksum, ends the read with ERR_CORRUPT and the exact missing range;
 * the caller may go on behind it. Numbers that retention or expiry has dropped end it with
 * ERR_EXPIRED in the same way: an archive says which; before the oldest kept number of a log of
 * which whole files were freed (floor.h) it is taken for that. Disk reads are whole blocks into
 * aligned memory, so that they work on descriptors with and without O_DIRECT. */
#include "store/reader.h"

#include "core/logging.h"
#include "core/memory.h"

/* ---- starting and ending */

static void state_destroy(struct read_state *state)
{
    memory_give(state->data, MEMORY_STORE);
    memory_give(state->raw.data, MEMORY_STORE);
    memory_give(state, MEMORY_STORE);
}

void read_finish(struct read_state *state, enum err err)
{
    struct log *log = state->log;
    struct log_read *read = state->read;
    struct read_state **at = &log->reads;
    while (*at != state)
        at = &(*at)->next;
    *at = state->next;
    read->err = err;
    read->state = NULL;
    read->next = NULL;
    *log->done_last = read;
    log->done_last = &read->next;
    if (state->capacity > READ_BUFFER_BYTES || state->raw.capacity > READ_BUFFER_BYTES) {
        state_destroy(state); /* a large record's buffer is not kept */
        return;
    }
    state->next = log->reads_free;
    log->reads_free = state;
}

void read_finish_missing(struct read_state *state, uint64_t from, uint64_t to)
{
    state->read->missing_from = from;
    state->read->missing_to = to;
    log_event(LOG_ERROR, "log_records_missing", LOG_U64("from_seq", from), LOG_U64("to_seq", to),
              LOG_END);
    read_finish(state, ERR_CORRUPT);
}

void read_finish_gone(struct read_state *state, uint64_t from, uint64_t to)
{
    state->read->missing_from = from;
    state->read->missing_to = to;
    read_finish(state, ERR_EXPIRED);
}

void read_gap(struct read_state *state, uint64_t seq)
{
    uint64_t last = seq - 1 < state->read->to_seq ? seq - 1 : state->read->to_seq;
    bool oldest =
        state->bottom && state->seq_next == state->seq_first && state->log->lifecycle.floor != 0;
    if (oldest)
        read_finish_gone(state, state->seq_next, last);
    else
        read_finish_missing(state, state->seq_next, last);
}

static struct read_state *state_take(struct log *log)
{
    struct read_state *state = log->reads_free;
    if (state != NULL) {
        log->reads_free = state->next;
        return state;
    }
    state = memory_take_zeroed(sizeof *state, MEMORY_STORE);
    if (state == NULL)
        return NULL;
    state->data = memory_take_aligned(READ_BUFFER_BYTES, SEGMENT_BLOCK, MEMORY_STORE);
    state->capacity = READ_BUFFER_BYTES;
    if (state->data == NULL) {
        memory_give(state, MEMORY_STORE);
        return NULL;
    }
    return state;
}

static void advance(struct read_state *state);

/* begin: at the newest segment; what is already taken stays. */
static void begin(struct read_state *state)
{
    state->at = state->log->active + 1;
    state->start = UINT32_MAX;
    state->lost = false;
    state->bottom = false;
    state->probed = false;
    state->resume_at = 0;
    state->arrived = false;
    state->restart = false;
    state->rebuilt = 0;
    state->entry_of = 0;
    state->hit_count = state->hit_at = state->hit_end = 0;
    state->phase = READ_SEEK;
    if (state->read->kind == LOG_READ_FIND)
        state->phase = READ_PRINT;
    else if (state->read->kind == LOG_READ_BACK && state->seq_first == 0)
        state->phase = READ_NEWEST;
}

enum err log_read(struct log *log, struct log_read *read)
{
    if (log->read_count >= LANE_READS_MAX)
        return ERR_FULL;
    struct read_state *state = state_take(log);
    if (state == NULL)
        return ERR_NO_MEMORY;
    uint8_t *data = state->data;
    size_t capacity = state->capacity;
    struct buffer raw = state->raw;
    *state = (struct read_state){
        .log = log, .read = read, .data = data, .capacity = capacity, .raw = raw};
    state->next = log->reads;
    log->reads = state;
    log->read_count++;
    state->seq_next = read->from_seq == 0 ? 1 : read->from_seq;
    state->seq_first = read->kind == LOG_READ_BACK ? 0 : state->seq_next;
    begin(state);
    read->state = state;
    read->records = 0;
    read->size_needed = 0;
    read->missing_from = read->missing_to = 0;
    advance(state);
    return OK;
}

struct log_read *log_read_done(struct log *log)
{
    struct log_read *read = log->done_first;
    if (read == NULL)
        return NULL;
    log->done_first = read->next;
    if (log->done_first == NULL)
        log->done_last = &log->done_first;
    read->next = NULL;
    log->read_count--;
    return read;
}

void reader_close(struct log *log)
{
    while (log->reads != NULL) {
        struct read_state *state = log->reads;
        log->reads = state->next;
        state_destroy(state);
    }
    while (log->reads_free != NULL) {
        struct read_state *state = log->reads_free;
        log->reads_free = state->next;
        state_destroy(state);
    }
}

/* ---- disk reads */

enum err read_fetch(struct read_state *state, struct lane_segment *segment, int fd, uint64_t offset,
                    size_t size)
{
    uint64_t base = align_down(offset, SEGMENT_BLOCK);
    size_t bytes = align_up((size_t)(offset - base) + size, SEGMENT_BLOCK);
    if (bytes > state->capacity) {
        uint8_t *larger = memory_take_aligned(bytes, SEGMENT_BLOCK, MEMORY_STORE);
        if (larger == NULL)
            return ERR_NO_MEMORY;
        memory_give(state->data, MEMORY_STORE);
        state->data = larger;
        state->capacity = bytes;
    }
    state->op.owner = (uint64_t)(uintptr_t)state->log;
    enum err err = io_file_read(state->log->io, &state->op, fd, base, state->data, bytes);
    if (err != OK)
        return err == ERR_FULL ? ERR_AGAIN : err;
    state->base = base;
    state->segment = segment;
    state->tries = 0;
    state->waiting = true;
    segment->users++;
    state->log->read_ops++;
    lane_count(state->log, METRIC_LOG_READS, 1);
    return OK;
}

/* again: a read that failed is repeated: what is called missing is passed over by whoever asked. */
static bool again(struct read_state *state)
{
    const struct io_file_op op = state->op;
    if (op.err == OK || state->log->closing || state->restart || ++state->tries >= READ_TRIES_MAX)
        return false;
    MARK("log_read_again");
    return io_file_read(state->log->io, &state->op, op.fd, op.offset, op.data, op.size) == OK;
}

void reader_on_file(struct log *log, struct io_file_op *op)
{
    struct read_state *state = CONTAINER_OF(op, struct read_state, op);
    if (again(state))
        return;
    log->read_ops--;
    state->segment->users--;
    state->waiting = false;
    state->arrived = true;
    if (state->restart)
        begin(state);
    if (!log->closing)
        advance(state);
}

void reader_restart(struct log *log)
{
    for (struct read_state *state = log->reads; state != NULL; state = state->next) {
        if (state->waiting)
            state->restart = true;
        else
            begin(state);
    }
}

struct bytes read_arrived(const struct read_state *state, uint64_t offset)
{
    size_t size = state->op.err == OK ? state->op.done_bytes : 0;
    if (offset < state->base || offset - state->base > size)
        return bytes_of(NULL, 0);
    return bytes_skip(bytes_of(state->data, size), (size_t)(offset - state->base));
}

/* arrived_bytes: what the finished operation brought; empty on an error. */
static struct bytes arrived_bytes(const struct read_state *state)
{
    return bytes_of(state->data, state->op.err == OK ? state->op.done_bytes : 0);
}

/* hit_sound: a place that can be a record's; sidecars are checksummed, but still bytes from disk.
 */
static bool hit_sound(const struct lane_segment *segment, const struct index_hit *hit)
{
    return hit->size >= RECORD_HEADER_BYTES && hit->offset >= SEGMENT_DATA_OFFSET &&
           hit->offset <= segment->header.bytes && hit->size <= segment->header.bytes - hit->offset;
}

/* hit_record: validate what was fetched for a hit. */
static enum err hit_record(const struct read_state *state, const struct lane_segment *segment,
                           const struct index_hit *hit, struct log_record *record,
                           struct bytes *encoded)
{
    struct bytes data = arrived_bytes(state);
    size_t skip = (size_t)(hit->offset - state->base);
    size_t taken;
    if (skip > data.size || hit->size > data.size - skip)
        return ERR_CORRUPT;
    *encoded = bytes_of(data.data + skip, hit->size);
    TRY(record_decode(record, *encoded, &segment->key, hit->offset, &taken));
    return taken == hit->size && record->kind != RECORD_LOST ? OK : ERR_CORRUPT;
}

/* ---- looking at one segment */

/* below: offsets from here on are not durable yet. */
static uint32_t below(const struct log *log, const struct lane_segment *segment)
{
    if (segment->id < position_segment(log->durable))
        return UINT32_MAX;
    return segment->id == position_segment(log->durable) ? position_offset(log->durable) : 0;
}

enum err read_ready(struct read_state *state, struct lane_segment *segment)
{
    if (segment->state == SEGMENT_READY)
        return ERR_NOT_FOUND;
    if (segment->state == SEGMENT_ACTIVE || segment->state == SEGMENT_SEALING)
        return OK;
    enum err err = lane_load(state->log, segment);
    if (err != ERR_CORRUPT)
        return err;
    state->lost = true;
    return ERR_NOT_FOUND;
}

/* damaged_sidecar: have it rebuilt once; the second time the segment counts as lost. */
static enum err damaged_sidecar(struct read_state *state, struct lane_segment *segment)
{
    if (state->rebuilt == segment->id) {
        state->lost = true;
        return ERR_NOT_FOUND;
    }
    state->rebuilt = segment->id;
    segment->rebuild = true;
    return ERR_AGAIN;
}

/* note_unsearched: not all places with the fingerprint may be among the hits: what is not found
 * among them may still be there. */
static void note_unsearched(struct read_state *state)
{
    if (state->read->kind == LOG_READ_FIND && state->hit_count == SIDECAR_HITS)
        state->lost = true;
}

/* look: fill hits with the segment's records from seq_next on (RANGE) or with the fingerprint
 * (FIND). ERR_AGAIN: an operation is under way or must wait; ERR_NOT_FOUND: cannot look. */
static enum err look(struct read_state *state, struct lane_segment *segment, bool *before)
{
    const struct log_read *read = state->read;
    bool find = read->kind == LOG_READ_FIND;
    bool arrived = state->arrived;
    state->hit_at = state->hit_count = 0;
    state->arrived = false;
    *before = false;
    TRY(read_ready(state, segment));
    uint32_t print = segment_print(&segment->key, read->conversation, read->sender, read->device,
                                   read->message_id);
    if (segment->index != NULL) {
        uint32_t limit = below(state->log, segment);
        state->hit_count = find ? index_find(segment->index, read->conversation, print, limit,
                                             state->hits, SIDECAR_HITS)
                                : index_range(segment->index, read->conversation, state->seq_next,
                                              limit, state->hits, SIDECAR_HITS, before);
        note_unsearched(state);
        return OK;
    }
    const struct sidecar *sidecar = segment->sidecar;
    if (!sidecar_may_hold(sidecar, read->conversation))
        return OK;
    uint64_t offset;
    size_t size;
    if (find)
        sidecar_find_where(sidecar, print, &offset, &size);
    else
        sidecar_range_where(sidecar, read->conversation, state->seq_next, &offset, &size);
    if (size == 0)
        return OK;
    /* What arrived may be of an older life of the sidecar: its checksum tells. */
    if (!arrived || state->segment != segment || state->base != offset) {
        enum err err = read_fetch(state, segment, sidecar->fd, offset, size);
        return err == OK ? ERR_AGAIN : err;
    }
    struct bytes data = arrived_bytes(state);
    if (data.size != size)
        return damaged_sidecar(state, segment);
    enum err err = find ? sidecar_find(sidecar, data, offset, print, state->hits, SIDECAR_HITS,
                                       &state->hit_count)
                        : sidecar_range(sidecar, data, offset, read->conversation, state->seq_next,
                                        state->hits, SIDECAR_HITS, &state->hit_count, before);
    note_unsearched(state);
    return err == OK ? OK : damaged_sidecar(state, segment);
}

/* ---- BACK */

/* newest: of the conversation in one segment; 0: none. ERR_AGAIN, ERR_NOT_FOUND as look's. */
static enum err newest(struct read_state *state, struct lane_segment *segment, uint64_t *seq)
{
    struct conversation_id conversation = state->read->conversation;
    *seq = 0;
    if (segment->archived)
        return read_archive_newest(state, segment, seq);
    bool arrived = state->arrived;
    state->arrived = false;
    TRY(read_ready(state, segment));
    if (segment->index != NULL) {
        *seq = index_newest(segment->index, conversation, below(state->log, segment));
        return OK;
    }
    const struct sidecar *sidecar = segment->sidecar;
    if (!sidecar_may_hold(sidecar, conversation))
        return OK;
    uint64_t offset;
    size_t size;
    sidecar_range_where(sidecar, conversation, UINT64_MAX, &offset, &size);
    if (size == 0)
        return OK;
    if (!arrived || state->segment != segment || state->base != offset) {
        enum err err = read_fetch(state, segment, sidecar->fd, offset, size);
        return err == OK ? ERR_AGAIN : err;
    }
    struct bytes data = arrived_bytes(state);
    if (data.size != size || sidecar_newest(sidecar, data, offset, conversation, seq) != OK)
        return damaged_sidecar(state, segment);
    return OK;
}

/* step_newest: the page ends at the newest number or at to_seq; the rest is a RANGE. */
static enum err step_newest(struct read_state *state)
{
    struct log_read *read = state->read;
    uint64_t seq;
    if (state->at == 0) {
        read_finish(state, state->lost ? ERR_CORRUPT : ERR_NOT_FOUND);
        return ERR_CLOSED;
    }
    enum err err = newest(state, state->log->segments[state->at - 1], &seq);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    if (err != OK || seq == 0) {
        state->at--;
        return OK;
    }
    read->to_seq = seq < read->to_seq ? seq : read->to_seq;
    read->from_seq = read->to_seq < read->records_max ? 1 : read->to_seq + 1 - read->records_max;
    state->seq_next = state->seq_first = read->from_seq;
    begin(state);
    return OK;
}

/* ---- RANGE */

static void range_end(struct read_state *state)
{
    struct log_read *read = state->read;
    if (state->lost && state->seq_next <= read->to_seq)
        read_finish_missing(state, state->seq_next, read->to_seq);
    else
        read_finish(state, read->records > 0 ? OK : ERR_NOT_FOUND);
}

/* step_probe: an archive that holds the first number itself is where the read starts: what is newer
 * need not be looked at. Before the first segment that costs a disk read to pass over. */
static enum err step_probe(struct read_state *state)
{
    struct log *log = state->log;
    bool has = false;
    bool before = false;
    enum err err = ERR_NOT_FOUND;
    if (state->at > 0 && log->segments[state->at - 1]->archived)
        err = read_archive_seek(state, log->segments[state->at - 1], &has, &before);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    bool holds = err == OK && has && state->entry.first_seq <= state->seq_next;
    bool newer = err == OK && !has && before;
    if (holds) {
        state->start = state->at - 1;
        state->at = 0;
        state->probed = true;
    } else if (newer || state->at == 0) {
        state->at = state->resume_at;
        state->probed = true;
    } else {
        state->at--;
    }
    return OK;
}

static enum err step_seek(struct read_state *state)
{
    struct log *log = state->log;
    if (!state->probed && state->resume_at != 0)
        return step_probe(state);
    if (!state->probed && state->at > 0 && log->segments[state->at - 1]->index == NULL) {
        state->resume_at = state->at;
        return OK;
    }
    if (state->at == 0) {
        if (state->start == UINT32_MAX) {
            if (state->bottom && !state->lost && state->log->lifecycle.floor != 0 &&
                state->read->records == 0)
                read_finish_gone(state, state->seq_next, state->read->to_seq);
            else
                range_end(state);
            return ERR_CLOSED;
        }
        state->at = state->start;
        state->lost = false; /* what is older shows as a gap before the first record */
        state->phase = READ_COLLECT;
        return OK;
    }
    bool before = false;
    bool has = false;
    struct lane_segment *segment = log->segments[state->at - 1];
    enum err err;
    if (segment->archived) {
        err = read_archive_seek(state, segment, &has, &before);
    } else {
        err = look(state, segment, &before);
        has = state->hit_count > 0;
    }
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    state->at--;
    state->bottom = state->at == 0 && (err != OK || !before);
    if (err == OK && has)
        state->start = state->at;
    if (err == OK && before)
        state->at = 0; /* the record before is here: nothing older is wanted */
    return OK;
}

/* plan: hits from hit_at on that one disk read fetches and that out can take; 0: out is full. */
static uint32_t plan(const struct read_state *state)
{
    const struct log_read *read = state->read;
    size_t room = buffer_room(&read->out);
    uint32_t left = read->records_max - read->records;
    uint64_t base = align_down(state->hits[state->hit_at].offset, SEGMENT_BLOCK);
    uint32_t i = state->hit_at;
    for (; i < state->hit_count && i - state->hit_at < left; i++) {
        const struct index_hit *hit = &state->hits[i];
        if (hit->seq > read->to_seq || hit->size > room)
            break;
        if (i > state->hit_at) {
            const struct index_hit *last = hit - 1;
            if (hit->seq != last->seq + 1 || hit->offset < last->offset + last->size ||
                hit->offset - (last->offset + last->size) > READ_GAP_BYTES ||
                align_up(hit->offset + hit->size - base, SEGMENT_BLOCK) > READ_BUFFER_BYTES)
                break;
        }
        room -= hit->size;
    }
    return i - state->hit_at;
}

/* step_hits: fetch what the hits from hit_at on name, or end the read. */
static enum err step_hits(struct read_state *state, struct lane_segment *segment)
{
    struct log_read *read = state->read;
    const struct index_hit *hit = &state->hits[state->hit_at];
    if (hit->seq != state->seq_next) {
        read_gap(state, hit->seq);
        return ERR_CLOSED;
    }
    if (!hit_sound(segment, hit)) {
        read_finish_missing(state, hit->seq, hit->seq);
        return ERR_CLOSED;
    }
    uint32_t count = plan(state);
    if (count == 0) {
        read->size_needed = read->records == 0 ? hit->size : 0;
        read_finish(state, read->records > 0 ? OK : ERR_FULL);
        return ERR_CLOSED;
    }
    state->hit_end = state->hit_at + count;
    const struct index_hit *last = &state->hits[state->hit_end - 1];
    enum err err = read_fetch(state, segment, segment->read_fd, hit->offset,
                              (size_t)(last->offset - hit->offset) + last->size);
    if (err == OK) {
        state->phase = READ_DATA;
        return ERR_AGAIN;
    }
    return err;
}

static bool range_served(const struct read_state *state)
{
    const struct log_read *read = state->read;
    return read->records >= read->records_max || state->seq_next > read->to_seq ||
           state->seq_next == 0;
}

static enum err step_collect(struct read_state *state)
{
    struct log *log = state->log;
    if (range_served(state) || state->at > log->active) {
        range_end(state);
        return ERR_CLOSED;
    }
    struct lane_segment *segment = log->segments[state->at];
    if (segment->archived) {
        enum err taken = read_archive_collect(state, segment);
        if (taken != ERR_NOT_FOUND)
            return taken;
        state->at++;
        return OK;
    }
    bool before;
    enum err err = look(state, segment, &before);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    if (err == OK && state->hit_count > 0)
        return step_hits(state, segment);
    state->at++;
    return OK;
}

static enum err step_data(struct read_state *state)
{
    struct log_read *read = state->read;
    struct lane_segment *segment = state->segment;
    for (; state->hit_at < state->hit_end; state->hit_at++) {
        const struct index_hit *hit = &state->hits[state->hit_at];
        struct log_record record;
        struct bytes encoded;
        enum err err = hit_sound(segment, hit) ? hit_record(state, segment, hit, &record, &encoded)
                                               : ERR_CORRUPT;
        if (err != OK || record.seq != hit->seq ||
            !conversation_id_equal(record.conversation, read->conversation)) {
            lane_count(state->log, METRIC_LOG_CORRUPT, 1);
            log_event(LOG_ERROR, "log_record_damaged", LOG_U64("segment", segment->id),
                      LOG_U64("offset", hit->offset), LOG_ERR(state->op.err), LOG_END);
            read_finish_missing(state, hit->seq, hit->seq);
            return ERR_CLOSED;
        }
        CHECK(buffer_append(&read->out, encoded) == OK); /* plan made sure of the room */
        read->records++;
        state->seq_next = hit->seq + 1;
        state->lost = false; /* what was before it would have shown as a gap */
    }
    state->arrived = false;
    state->phase = READ_COLLECT;
    if (state->hit_at < state->hit_count && !range_served(state) &&
        (segment->state != SEGMENT_SEALED || lane_loaded(segment)))
        return step_hits(state, segment);
    return OK;
}

/* ---- FIND */

static enum err step_print(struct read_state *state)
{
    struct log *log = state->log;
    if (state->at == 0 || !message_id_given(state->read->message_id)) {
        read_finish(state, state->lost ? ERR_CORRUPT : ERR_NOT_FOUND);
        return ERR_CLOSED;
    }
    struct lane_segment *segment = log->segments[state->at - 1];
    if (segment->archived) {
        enum err found = read_archive_find(state, segment);
        if (found != ERR_NOT_FOUND)
            return found;
        state->at--;
        return OK;
    }
    bool before;
    enum err err = look(state, segment, &before);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    if (err == OK && state->hit_count > 0)
        state->phase = READ_CANDIDATE;
    else
        state->at--;
    return OK;
}

bool read_same_message(const struct log_record *record, const struct log_read *read)
{
    return conversation_id_equal(record->conversation, read->conversation) &&
           record->sender.v == read->sender.v && record->device.v == read->device.v &&
           memcmp(record->message_id.v, read->message_id.v, sizeof record->message_id.v) == 0;
}

static enum err candidate_arrived(struct read_state *state, struct lane_segment *segment)
{
    struct log_read *read = state->read;
    struct log_record record;
    struct bytes encoded;
    enum err err = hit_record(state, segment, &state->hits[state->hit_at++], &record, &encoded);
    state->lost = state->lost || err != OK;
    if (err != OK || !read_same_message(&record, read))
        return OK;
    if (buffer_append(&read->out, encoded) != OK) {
        read->size_needed = encoded.size;
        read_finish(state, ERR_FULL);
        return ERR_CLOSED;
    }
    read->records = 1;
    read_finish(state, OK);
    return ERR_CLOSED;
}

static enum err step_candidate(struct read_state *state)
{
    struct lane_segment *segment = state->log->segments[state->at - 1];
    if (state->arrived) {
        state->arrived = false;
        TRY(candidate_arrived(state, segment));
    }
    while (state->hit_at < state->hit_count && !hit_sound(segment, &state->hits[state->hit_at]))
        state->hit_at++;
    if (state->hit_at == state->hit_count) {
        state->at--;
        state->phase = READ_PRINT;
        return OK;
    }
    enum err err = read_ready(state, segment);
    if (err == ERR_NOT_FOUND)
        state->hit_at = state->hit_count;
    if (err != OK)
        return err == ERR_NOT_FOUND ? OK : err;
    const struct index_hit *hit = &state->hits[state->hit_at];
    err = read_fetch(state, segment, segment->read_fd, hit->offset, hit->size);
    return err == OK ? ERR_AGAIN : err;
}

/* ---- stepping */

static enum err step(struct read_state *state)
{
    switch (state->phase) {
    case READ_NEWEST:
        return step_newest(state);
    case READ_SEEK:
        return step_seek(state);
    case READ_COLLECT:
        return step_collect(state);
    case READ_DATA:
        return step_data(state);
    case READ_PRINT:
        return step_print(state);
    case READ_CANDIDATE:
        return step_candidate(state);
    }
    CHECK(state->phase <= READ_CANDIDATE);
    return ERR_INVALID;
}

/* advance: until it waits (ERR_AGAIN) or is finished (ERR_CLOSED). */
static void advance(struct read_state *state)
{
    enum err err = OK;
    while (err == OK)
        err = step(state);
    if (err != ERR_CLOSED && err != ERR_AGAIN)
        read_finish(state, err);
}

void reader_wake(struct log *log)
{
    if (log->closing)
        return;
    struct read_state *next;
    for (struct read_state *state = log->reads; state != NULL; state = next) {
        next = state->next;
        if (!state->waiting)
            advance(state);
    }
}
