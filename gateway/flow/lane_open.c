/* lane_open.c: a store's lanes are opened, their tails replayed into the catalog, and closed
 * (lane.h). */
#include "gateway/flow/lane_private.h"

#include "core/file.h"
#include "gateway/flow/replaying.h"
#include "gateway/flow/retention.h"
#include "store/segment.h"

#include <inttypes.h>
#include <stdio.h>

/* opening: of the shard's lanes, one after the other. */
struct opening {
    struct replaying replaying;
    uint32_t lane;  /* being opened */
    uint32_t lanes; /* ERR_CONFLICT: the store's */
};

static struct log_options options_of(const struct gateway *gateway, const struct lane *lane,
                                     uint64_t checkpoint)
{
    const struct config *config = gateway->config;
    return (struct log_options){
        .lane = lane->index,
        .shard = shard_of_lane(gateway, lane->index),
        .segment_bytes = config->segment_bytes,
        .batch_bytes_max = config->batch_bytes,
        .reserve_bytes = config->reserve_bytes,
        .writer_epoch = gateway->writer_epoch,
        .checkpoint = checkpoint,
        .direct = config->direct,
        .skip_sync = config->unsafe_skip_sync,
        .make_rate = config->make_rate,
        .spare_segments = config->spare_segments,
        .merge_segments = config->merge_segments,
        .merge_inputs = config->merge_inputs,
        .merge_rate = config->merge_rate,
        .archive_bytes_max = config->archive_bytes,
        .compress = config->compress,
        .trust_clock = config->trust_clock,
        .cold_ms = config->cold_age_s * 1000ull,
        .lookup_bytes = config->lookup_bytes / gateway->lane_count,
        .scrub_rate = config->scrub_rate,
    };
}

static enum err is_segment(void *context, const char *name)
{
    uint32_t id;
    *(bool *)context = *(bool *)context || segment_name_parse(&id, name, ".segment") == OK;
    return OK;
}

/* is_there: that a checkpoint names a place in an empty directory means that it is not the log's:
 * its disk is not mounted. */
static enum err is_there(const char *directory, uint64_t checkpoint)
{
    bool found = checkpoint == 0;
    enum err err = OK;
    if (!found)
        err = file_list(directory, is_segment, &found);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    return found ? OK : ERR_NOT_FOUND;
}

static enum err open_lane(struct shard *shard, struct lane *lane, struct opening *opening)
{
    struct gateway *gateway = shard->gateway;
    const struct config *config = gateway->config;
    char directory[LANE_PATH_BYTES];
    uint64_t damaged = 0;
    uint64_t records = opening->replaying.records;
    uint64_t checkpoint = atomic_load_explicit(&lane->status->checkpointed, memory_order_acquire);
    struct log_options options = options_of(gateway, lane, checkpoint);
    lanes_directory(directory, config->directory, config->lane_directories, lane->index);
    lanes_cold_directory(lane->cold, config->cold_directory, lane->index);
    opening->lane = lane->index;
    TRY(is_there(directory, checkpoint));
    options.directory = directory;
    options.cold_directory = lane->cold[0] == 0 ? NULL : lane->cold;
    if (lane->index != 0 && options.cold_directory != NULL)
        TRY(file_make_directory(lane->cold));
    retention_fill(&options.retention, config, gateway->catalog);
    options.retention.bytes =
        (options.retention.bytes + gateway->lane_count - 1) / gateway->lane_count;
    lane->metrics = shard->metrics;
    if (lane->index != 0)
        lane->metrics = gateway->metrics[gateway->shard_count + lane->index - 1];
    TRY(log_open(&lane->log, &options, shard->io, gateway->workers, lane->metrics, replaying_record,
                 &opening->replaying, &damaged));
    TRY(opening->replaying.err);
    lane->answered = log_durable(lane->log);
    lane->status->clock = *log_clock(lane->log);
    log_event(damaged == 0 ? LOG_INFO : LOG_ERROR, "log_recovered", LOG_U64("lane", lane->index),
              LOG_U64("records", opening->replaying.records - records), LOG_U64("damaged", damaged),
              LOG_U64("position", lane->answered));
    return OK;
}

/* open_store: shard 0, before any lane: how many there are, the epoch, from where each is replayed.
 */
static enum err open_store(struct gateway *gateway, struct opening *opening)
{
    struct checkpoint_meta meta;
    TRY(checkpoint_read_meta(gateway->catalog, &meta));
    if (meta.lanes != 0 && meta.lanes != gateway->lane_count) {
        opening->lanes = meta.lanes;
        return ERR_CONFLICT;
    }
    meta.lanes = gateway->lane_count;
    gateway->writer_epoch = ++meta.writer_epoch;
    TRY(checkpoint_write_meta(gateway->catalog, &meta));
    TRY(lanes_write(gateway->catalog, gateway->config->lane_directories));
    for (uint32_t i = 0; i < gateway->lane_count; i++)
        atomic_store_explicit(&gateway->lanes[i].checkpointed, meta.positions[i],
                              memory_order_release);
    return OK;
}

/* open_logs: what is replayed is written before a checkpoint may name it. */
static enum err open_logs(struct shard *shard, struct lanes *lanes, struct opening *opening)
{
    struct gateway *gateway = shard->gateway;
    for (uint32_t i = 0; i < lanes->count; i++) {
        struct lane *lane = &lanes->lanes[i];
        lane->index = shard->index + i * gateway->shard_count;
        lane->node = mesh_lane(gateway->mesh, lane->index);
        lane->status = &gateway->lanes[lane->index];
        TRY(open_lane(shard, lane, opening));
    }
    TRY(replaying_finish(&opening->replaying));
    for (uint32_t i = 0; i < lanes->count; i++) {
        struct lane *lane = &lanes->lanes[i];
        TRY(checkpoint_write_position(gateway->catalog, lane->index, lane->answered));
        log_checkpointed(lane->log, lane->answered);
        atomic_store_explicit(&lane->status->settled, lane->answered, memory_order_release);
        atomic_store_explicit(&lane->status->checkpointed, lane->answered, memory_order_release);
    }
    return OK;
}

static void explain_open(const struct config *config, const struct opening *opening, enum err err,
                         char *explanation, size_t size)
{
    char directory[LANE_PATH_BYTES];
    lanes_directory(directory, config->directory, config->lane_directories, opening->lane);
    if (err == ERR_NO_SPACE)
        snprintf(explanation, size,
                 "no space for the log under %s: a new one needs store.segment_size and "
                 "store.reserve_size (%" PRIu64 " MiB) free on its file system, a start a little; "
                 "or the catalog has reached store.catalog_map_size (%" PRIu64
                 " MiB): raise it. Nothing is lost",
                 directory, (config->segment_bytes + config->reserve_bytes) >> 20,
                 config->catalog_map_bytes >> 20);
    else if (err == ERR_CONFLICT)
        snprintf(explanation, size,
                 "the store in %s has %u lanes, but store.lane_directories names %u (besides the "
                 "first): name all of them, in the same order; how many is settled when a store is "
                 "made",
                 config->directory, opening->lanes, lanes_count(config->lane_directories) - 1);
    else if (err == ERR_NOT_FOUND)
        snprintf(explanation, size,
                 "the log of this store is not in %s: mount its disk, correct store.directory or "
                 "store.lane_directories, or restore it from a snapshot",
                 directory);
    else if (err == ERR_INVALID)
        snprintf(explanation, size,
                 "%s has a log of another lane or another store: name the directories of "
                 "store.lane_directories in their old order",
                 directory);
    else
        snprintf(explanation, size,
                 "the log under %s could not be opened (%s): run `roost log verify %s`", directory,
                 err_name(err), directory);
}

static void free_lanes(struct lanes *lanes)
{
    for (uint32_t i = 0; i < lanes->count; i++) {
        lane_count_deinit(&lanes->lanes[i]);
        memory_give(lanes->lanes[i].owed, MEMORY_STORE);
    }
    memory_give(lanes, MEMORY_STORE);
}

static void close_logs(struct lanes *lanes)
{
    struct log *logs[LANES_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < lanes->count; i++)
        if (lanes->lanes[i].log != NULL)
            logs[count++] = lanes->lanes[i].log;
    if (count != 0)
        log_close_all(logs, count);
    free_lanes(lanes);
}

static enum err open_all(struct shard *shard, struct lanes *lanes, struct opening *opening)
{
    if (shard->index == 0)
        TRY(open_store(shard->gateway, opening));
    TRY(replaying_init(&opening->replaying, shard->gateway->catalog, shard->gateway->workers,
                       shard->io, shard->index));
    return open_logs(shard, lanes, opening);
}

enum err lane_create(struct shard *shard, char *explanation, size_t explanation_size)
{
    const struct gateway *gateway = shard->gateway;
    const struct config *config = gateway->config;
    struct opening opening = {0};
    if (shard->index >= gateway->lane_count)
        return OK;
    if (config->cold_directory[0] != 0 && file_sync_directory(config->cold_directory) != OK) {
        snprintf(
            explanation, explanation_size,
            "store.cold_directory %s cannot be used: mount it, make it, or correct the setting",
            config->cold_directory);
        return ERR_NOT_FOUND;
    }
    struct lanes *lanes = memory_take_zeroed(sizeof *lanes, MEMORY_STORE);
    if (lanes == NULL)
        return ERR_NO_MEMORY;
    lanes->count = (gateway->lane_count - shard->index - 1) / gateway->shard_count + 1;
    enum err err = open_all(shard, lanes, &opening);
    replaying_deinit(&opening.replaying);
    if (err != OK) {
        close_logs(lanes);
        explain_open(config, &opening, err, explanation, explanation_size);
        return err;
    }
    shard->lanes = lanes;
    return OK;
}

void lane_destroy(struct shard *shard)
{
    if (shard->lanes != NULL)
        close_logs(shard->lanes);
    shard->lanes = NULL;
}

void lane_abandon(struct shard *shard)
{
    struct lanes *lanes = shard->lanes;
    if (lanes == NULL)
        return;
    for (uint32_t i = 0; i < lanes->count; i++)
        log_abandon(lanes->lanes[i].log);
    free_lanes(lanes);
    shard->lanes = NULL;
}
