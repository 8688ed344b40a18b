/* reader.c: asynchronous reads. A read is a small state machine; each step looks at one segment and
 * either has what it needs in memory or waits for disk reads or for a segment to be loaded.
 *
 *   RANGE  SEEK       from the newest segment back to the one that holds from_seq, or the last
 *                     record before it (a filter passes over segments without the conversation);
 *                     the places passed are remembered. Where looking would read, the archives are
 *                     asked first which one holds from_seq, by halving
 *          COLLECT    the places remembered; where there are none, look in this segment
 *          DATA       they are fetched, neighbours with one disk read, many reads at a time,
 *                     checked, copied out; → COLLECT
 *   BACK   NEWEST     the conversation's newest number; then a RANGE that ends there or at to_seq
 *                     and is sought from that segment back
 *
 * SEEK costs no disk read in segments and archives whose index or places (places.h) are in memory,
 * one in each other that holds the conversation, of archives the logarithm of their number. COLLECT
 * and DATA: reader_range.c; FIND: reader_find.c; in an archive, which stands in the place of its
 * segments: reader_archive.c.
 *
 * Within a conversation sequence numbers ascend without gaps. A gap between what stands in the log,
 * or a record that fails its checksum, ends the read with ERR_CORRUPT and the exact missing range;
 * the caller may go on behind it. Numbers that retention or expiry has dropped end it with
 * ERR_EXPIRED in the same way: an archive says which. Disk reads are whole blocks into aligned
 * memory, so that they work on descriptors with and without O_DIRECT. */
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

bool read_say(struct log *log, enum lane_say_kind kind, uint64_t *suppressed)
{
    struct lane_say *say = &log->say[kind];
    uint64_t now_ns = io_now_ns(log->io);
    if (now_ns < say->due_ns) {
        say->suppressed++;
        return false;
    }
    *suppressed = say->suppressed;
    *say = (struct lane_say){.due_ns = now_ns + LANE_SAY_NS};
    return true;
}

void read_finish_missing(struct read_state *state, uint64_t from, uint64_t to)
{
    uint64_t suppressed;
    state->read->missing_from = from;
    state->read->missing_to = to;
    if (read_say(state->log, SAY_MISSING, &suppressed))
        log_event(LOG_ERROR, "log_records_missing",
                  LOG_U64("conversation_hi", state->read->conversation.hi),
                  LOG_U64("conversation_lo", state->read->conversation.lo),
                  LOG_U64("from_seq", from), LOG_U64("to_seq", to),
                  LOG_U64("suppressed", suppressed), LOG_END);
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
    uint64_t to = state->read->to_seq;
    read_finish_missing(state, state->seq_next, seq - 1 < to ? seq - 1 : to);
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

/* seek: from the segment that `at` names back. */
static void seek(struct read_state *state)
{
    state->start = UINT32_MAX;
    state->probed = false;
    state->resume_at = 0;
    state->arrived = false;
    state->hit_count = state->hit_at = 0;
    state->window_at = READ_WINDOW;
    state->window_count = 0;
    state->gathered = true;
    state->phase = READ_SEEK;
}

void read_begin(struct read_state *state)
{
    seek(state);
    state->at = state->log->active + 1;
    state->lost = false;
    state->restart = false;
    state->rebuilt = 0;
    state->entry_of = 0;
    memset(state->known, 0, sizeof state->known);
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
    read_begin(state);
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

enum err read_room(struct read_state *state, size_t bytes)
{
    if (bytes <= state->capacity)
        return OK;
    uint8_t *larger = memory_take_aligned(bytes, SEGMENT_BLOCK, MEMORY_STORE);
    if (larger == NULL)
        return ERR_NO_MEMORY;
    memory_give(state->data, MEMORY_STORE);
    state->data = larger;
    state->capacity = bytes;
    return OK;
}

enum err read_issue(struct read_state *state, struct lane_segment *segment, int fd, uint64_t base,
                    uint8_t *data, size_t bytes)
{
    struct log *log = state->log;
    if (!state->waiting)
        state->op_count = 0;
    CHECK(state->op_count < READ_OPS);
    struct read_op *op = &state->ops[state->op_count];
    *op = (struct read_op){.state = state, .segment = segment, .base = base};
    op->op.owner = (uint64_t)(uintptr_t)log;
    enum err err = io_file_read(log->io, &op->op, fd, base, data, bytes);
    if (err != OK)
        return err == ERR_FULL ? ERR_AGAIN : err;
    state->op_count++;
    state->op_pending++;
    state->waiting = true;
    segment->users++;
    log->read_ops++;
    lane_count(log, METRIC_LOG_READS, 1);
    return OK;
}

enum err read_fetch(struct read_state *state, struct lane_segment *segment, int fd, uint64_t offset,
                    size_t size)
{
    uint64_t base = align_down(offset, SEGMENT_BLOCK);
    size_t bytes = align_up((size_t)(offset - base) + size, SEGMENT_BLOCK);
    TRY(read_room(state, bytes));
    return read_issue(state, segment, fd, base, state->data, bytes);
}

/* again: a read that failed is repeated: what is called missing is passed over by whoever asked. */
static bool again(struct read_op *read)
{
    struct log *log = read->state->log;
    const struct io_file_op op = read->op;
    if (op.err == OK || log->closing || read->state->restart || ++read->tries >= READ_TRIES_MAX)
        return false;
    MARK("log_read_again");
    return io_file_read(log->io, &read->op, op.fd, op.offset, op.data, op.size) == OK;
}

void reader_on_file(struct log *log, struct io_file_op *op)
{
    struct read_op *read = CONTAINER_OF(op, struct read_op, op);
    struct read_state *state = read->state;
    if (again(read))
        return;
    log->read_ops--;
    read->segment->users--;
    if (--state->op_pending > 0)
        return;
    state->waiting = false;
    state->arrived = true;
    if (state->restart)
        read_begin(state);
    if (!log->closing)
        advance(state);
}

void reader_restart(struct log *log)
{
    for (struct read_state *state = log->reads; state != NULL; state = state->next) {
        if (state->waiting)
            state->restart = true;
        else
            read_begin(state);
    }
}

struct bytes read_arrived(const struct read_op *op, uint64_t offset)
{
    struct bytes data = read_op_bytes(op);
    if (offset < op->base || offset - op->base > data.size)
        return bytes_of(NULL, 0);
    return bytes_skip(data, (size_t)(offset - op->base));
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

/* look_sidecar: what the block of the sidecar says; it is fetched first. */
static enum err look_sidecar(struct read_state *state, struct lane_segment *segment, bool here,
                             uint32_t print, bool *before)
{
    const struct log_read *read = state->read;
    const struct sidecar *sidecar = segment->sidecar;
    bool find = read->kind == LOG_READ_FIND;
    uint64_t offset;
    size_t size;
    if (find)
        sidecar_find_where(sidecar, print, &offset, &size);
    else
        sidecar_range_where(sidecar, read->conversation, state->seq_next, &offset, &size);
    if (size == 0)
        return OK;
    /* What arrived may be of an older life of the sidecar: its checksum tells. */
    if (!here || state->ops[0].base != offset) {
        enum err err = read_fetch(state, segment, sidecar->fd, offset, size);
        return err == OK ? ERR_AGAIN : err;
    }
    struct bytes data = read_op_bytes(&state->ops[0]);
    if (data.size != size)
        return damaged_sidecar(state, segment);
    enum err err = find ? sidecar_find(sidecar, data, offset, print, state->hits, SIDECAR_HITS,
                                       &state->hit_count)
                        : sidecar_range(sidecar, data, offset, read->conversation, state->seq_next,
                                        state->hits, SIDECAR_HITS, &state->hit_count, before);
    note_unsearched(state);
    return err == OK ? OK : damaged_sidecar(state, segment);
}

enum err read_look(struct read_state *state, struct lane_segment *segment, bool *before)
{
    const struct log_read *read = state->read;
    bool find = read->kind == LOG_READ_FIND;
    bool here = read_of(state, segment);
    state->hit_at = state->hit_count = 0;
    state->hit_bounds = false;
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
    if (!sidecar_may_hold(segment->sidecar, read->conversation))
        return OK;
    if (!find && segment->places != NULL) {
        enum err err = places_range(segment->places, read->conversation, state->seq_next,
                                    state->hits, SIDECAR_HITS, &state->hit_count, before);
        state->hit_bounds = true;
        if (err != ERR_UNSUPPORTED)
            return OK; /* ERR_NOT_FOUND: no hits */
        state->hit_bounds = false;
    }
    return look_sidecar(state, segment, here, print, before);
}

/* ---- BACK */

/* newest: of the conversation in one segment; 0: none. ERR_AGAIN, ERR_NOT_FOUND as look's. */
static enum err newest(struct read_state *state, struct lane_segment *segment, uint64_t *seq)
{
    struct conversation_id conversation = state->read->conversation;
    *seq = 0;
    if (segment->archived)
        return read_archive_newest(state, segment, seq);
    bool here = read_of(state, segment);
    state->arrived = false;
    TRY(read_ready(state, segment));
    if (segment->index != NULL) {
        *seq = index_newest(segment->index, conversation, below(state->log, segment));
        return OK;
    }
    const struct sidecar *sidecar = segment->sidecar;
    if (!sidecar_may_hold(sidecar, conversation))
        return OK;
    if (segment->places != NULL &&
        places_newest(segment->places, conversation, seq) != ERR_UNSUPPORTED)
        return OK; /* ERR_NOT_FOUND: 0 */
    uint64_t offset;
    size_t size;
    sidecar_range_where(sidecar, conversation, UINT64_MAX, &offset, &size);
    if (size == 0)
        return OK;
    if (!here || state->ops[0].base != offset) {
        enum err err = read_fetch(state, segment, sidecar->fd, offset, size);
        return err == OK ? ERR_AGAIN : err;
    }
    struct bytes data = read_op_bytes(&state->ops[0]);
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
    seek(state); /* newer segments have nothing of the conversation */
    return OK;
}

/* ---- RANGE */

void read_end(struct read_state *state)
{
    struct log_read *read = state->read;
    if (state->lost && state->seq_next <= read->to_seq)
        read_finish_missing(state, state->seq_next, read->to_seq);
    else
        read_finish(state, read->records > 0 ? OK : ERR_NOT_FOUND);
}

/* probe_begin: before the first segment or archive that costs a disk read to pass over. */
static void probe_begin(struct read_state *state)
{
    state->resume_at = state->at;
    state->probe_lo = 0;
    state->probe = state->probe_hi = state->at;
}

/* probe_middle: the archive below which half of their bytes are: old ones are large, and likelier.
 */
static uint32_t probe_middle(const struct read_state *state)
{
    struct lane_segment *const *segments = state->log->segments;
    uint64_t all = 0;
    for (uint32_t i = state->probe_lo; i < state->probe_hi; i++)
        all += segments[i]->archived ? segments[i]->footer.bytes : 0;
    uint64_t below = 0;
    uint32_t at = state->probe_lo;
    for (; at + 1 < state->probe_hi; at++) {
        below += segments[at]->archived ? segments[at]->footer.bytes : 0;
        if (below >= all / 2)
            break;
    }
    return at;
}

/* step_probe: an archive that holds the first number itself is where the read starts: what is newer
 * need not be looked at. Numbers ascend over the archives: half of their bytes are left after each
 * that has any of the conversation. */
static enum err step_probe(struct read_state *state)
{
    struct log *log = state->log;
    bool has = false;
    bool before = false;
    enum err err = ERR_NOT_FOUND;
    if (state->probe_lo >= state->probe_hi) {
        state->probed = true; /* in none */
        return OK;
    }
    uint32_t middle = probe_middle(state);
    if (state->probe == state->probe_hi)
        state->probe = middle;
    if (log->segments[state->probe]->archived)
        err = read_archive_seek(state, log->segments[state->probe], &has, &before);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    if (err == OK && has && state->entry.first_seq <= state->seq_next) {
        state->start = state->probe;
        state->at = 0;
        state->probed = true;
        state->window_count = 0; /* what is between was not looked at */
        state->gathered = false;
        return OK;
    }
    if (err == OK && has)
        state->probe_hi = state->probe; /* it is in an older one */
    else if ((err == OK && before) || state->probe == state->probe_lo)
        state->probe_lo = middle + 1; /* it is in a newer one */
    else {
        state->probe--; /* nothing of the conversation in this one */
        return OK;
    }
    state->probe = state->probe_hi;
    return OK;
}

/* seek_end: all has been looked at that was wanted. */
static enum err seek_end(struct read_state *state)
{
    if (state->start == UINT32_MAX) {
        read_end(state);
        return ERR_CLOSED;
    }
    state->gathered = state->gathered && !state->lost;
    state->at = state->start;
    state->lost = false; /* what is older shows as a gap before the first record */
    state->phase = READ_COLLECT;
    return OK;
}

/* look_reads: looking there would cost a disk read, or loading. */
static bool look_reads(const struct lane_segment *segment)
{
    return segment->index == NULL && segment->places == NULL;
}

static enum err step_seek(struct read_state *state)
{
    if (!state->probed && state->resume_at != 0)
        return step_probe(state);
    if (state->at == 0)
        return seek_end(state);
    struct lane_segment *segment = state->log->segments[state->at - 1];
    if (!state->probed && look_reads(segment)) {
        probe_begin(state);
        return OK;
    }
    bool before = false;
    bool has = false;
    bool here = false; /* the first one wanted */
    enum err err;
    if (segment->archived) {
        err = read_archive_seek(state, segment, &has, &before);
        here = has && state->entry.first_seq <= state->seq_next;
    } else {
        err = read_look(state, segment, &before);
        has = state->hit_count > 0;
        here = has && state->hits[0].seq == state->seq_next;
    }
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    state->at--;
    if (err == OK && has)
        state->start = state->at;
    if (err == OK && has && !segment->archived)
        read_remember(state, segment);
    if (err == OK && (before || here))
        state->at = 0; /* nothing older is wanted */
    return OK;
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
        return read_step_collect(state);
    case READ_DATA:
        return read_step_data(state);
    case READ_PRINT:
        return read_step_print(state);
    case READ_CANDIDATE:
        return read_step_candidate(state);
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
