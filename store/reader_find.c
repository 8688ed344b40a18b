/* reader_find.c: FIND: the record of a message key, wherever it stands, newest segment first.
 *
 *   PRINT      from the newest segment back: places with the key's fingerprint
 *   CANDIDATE  fetch one, compare the whole key */
#include "store/reader.h"

enum err read_step_print(struct read_state *state)
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
    enum err err = read_look(state, segment, &before);
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

/* candidate_decode: what was fetched for a hit. */
static enum err candidate_decode(const struct read_state *state, const struct lane_segment *segment,
                                 const struct index_hit *hit, struct log_record *record,
                                 struct bytes *encoded)
{
    struct bytes data = read_arrived(&state->ops[0], hit->offset);
    size_t taken;
    if (hit->size > data.size)
        return ERR_CORRUPT;
    *encoded = bytes_of(data.data, hit->size);
    TRY(record_decode(record, *encoded, &segment->key, hit->offset, &taken));
    return taken == hit->size && record->kind != RECORD_LOST ? OK : ERR_CORRUPT;
}

static enum err candidate_arrived(struct read_state *state, struct lane_segment *segment)
{
    struct log_read *read = state->read;
    struct log_record record;
    struct bytes encoded;
    enum err err =
        candidate_decode(state, segment, &state->hits[state->hit_at++], &record, &encoded);
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

enum err read_step_candidate(struct read_state *state)
{
    struct lane_segment *segment = state->log->segments[state->at - 1];
    if (state->arrived) {
        state->arrived = false;
        TRY(candidate_arrived(state, segment));
    }
    while (state->hit_at < state->hit_count &&
           !hit_sound(segment, state->hits[state->hit_at].offset, state->hits[state->hit_at].size))
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
