/* snapshot.c: a snapshot is a directory, mode 0700:
 *
 *   catalog/data.mdb   the catalog as of one transaction, compacted
 *   log/               the first lane's files (store/snapshot.c): links where the file system has
 *                      them
 *   log-1/ …           the further lanes' (lanes.h)
 *   snapshot           the manifest, written last: without it the rest is an attempt
 *
 * The manifest is text, one "key value" a line, in this order: roost-snapshot (format, 1), made_ms,
 * version (of roost), catalog_bytes, catalog_crc32c (8 hex digits), damaged_ranges, lanes (how
 * many), a line "lane N CHECKPOINT END" for each from 0 (positions, 16 hex digits), and crc32c, 8
 * hex digits, over all lines before.
 *
 * Why it is consistent under load, without a word to the gateway. The catalog is copied first, as
 * of one committed transaction: rows, and a checkpoint P. A row never says more than was durable in
 * the log when it was written, and P was durable too. The log is copied afterwards, with everything
 * that is durable by then. So the copied log reaches beyond P and beyond every row, and the start
 * after a restore replays from P, as after a crash: replay raises rows and never lowers them. What
 * was acknowledged before the call is in the log by then. A request on the admin listener would
 * need the same two steps in the same order, and a gateway that runs, and its rights: nothing is
 * gained.
 *
 * Secrets. The file of keys (chat/secrets.h) is not in a snapshot, and a restored store makes new
 * ones: none of them is needed to read what is stored. New signing and ticket keys mean that access
 * tokens and TLS tickets from before do not hold (clients refresh, or log in again), and that
 * whoever has a back-up cannot make tokens; a new placement key moves users between shards, which
 * nothing on disk depends on; and the new store epoch is what must be: the restored history lacks
 * what was sent after the snapshot and will give those sequence numbers again, so every client
 * forgets its cursors (EPOCH_CHANGED) and resyncs. Keys that erasure must be able to destroy belong
 * into that file, too: then no back-up undoes an erasure. Passwords are in the catalog as argon2id
 * hashes, refresh tokens as SHA-256: guard a snapshot like the store. */
#include "gateway/flow/snapshot.h"

#include "core/file.h"
#include "core/hash.h"
#include "core/memory.h"
#include "gateway/chat/secrets.h"
#include "gateway/flow/checkpoint.h"
#include "gateway/flow/lanes.h"

#include <inttypes.h>
#include <openssl/mem.h>
#include <stdio.h>

#define PATH_BYTES     (STORE_PATH_BYTES + 64)
#define MANIFEST_BYTES 1024
#define VERSION_BYTES  64
#define MAP_BYTES      (64ull << 30) /* address space for a restored catalog; serve sets its own */
#define MANIFEST_NAME  "snapshot"

struct manifest {
    uint64_t made_ms;
    char version[VERSION_BYTES];
    uint32_t lanes;
    uint64_t checkpoints[LANES_MAX];
    uint64_t ends[LANES_MAX];
    char further[CONFIG_TEXT_BYTES]; /* not written: where the lanes were, or are restored to */
    uint64_t catalog_bytes;
    uint32_t catalog_crc;
    uint64_t damaged;
};

static enum err path_of(char out[PATH_BYTES], const char *directory, const char *name)
{
    if (strlen(directory) >= STORE_PATH_BYTES - 32)
        return ERR_TOO_BIG;
    snprintf(out, PATH_BYTES, "%s/%s", directory, name);
    return OK;
}

/* ---- the manifest */

static enum err manifest_write(const char *target, const struct manifest *m)
{
    char path[PATH_BYTES];
    char path_new[PATH_BYTES];
    char text[MANIFEST_BYTES];
    int fd;
    int size =
        snprintf(text, sizeof text,
                 "roost-snapshot 1\nmade_ms %" PRIu64 "\nversion %.63s\ncatalog_bytes %" PRIu64
                 "\ncatalog_crc32c %08" PRIx32 "\ndamaged_ranges %" PRIu64 "\nlanes %" PRIu32 "\n",
                 m->made_ms, m->version, m->catalog_bytes, m->catalog_crc, m->damaged, m->lanes);
    for (uint32_t i = 0; i < m->lanes; i++)
        size += snprintf(text + size, sizeof text - (size_t)size,
                         "lane %" PRIu32 " %016" PRIx64 " %016" PRIx64 "\n", i, m->checkpoints[i],
                         m->ends[i]);
    uint32_t crc = crc32c(0, bytes_of(text, (size_t)size));
    size += snprintf(text + size, sizeof text - (size_t)size, "crc32c %08" PRIx32 "\n", crc);
    TRY(path_of(path, target, MANIFEST_NAME));
    TRY(path_of(path_new, target, MANIFEST_NAME ".new"));
    TRY(file_open(&fd, path_new, FILE_WRITE | FILE_CREATE | FILE_PRIVATE));
    enum err err = file_write(fd, 0, bytes_of(text, (size_t)size));
    if (err == OK)
        err = file_sync(fd);
    file_close(fd);
    TRY(err);
    TRY(file_rename(path_new, path));
    return file_sync_directory(target);
}

static enum err manifest_parse(struct manifest *m, char *text)
{
    unsigned format = 0;
    uint32_t crc = 0;
    *m = (struct manifest){0};
    char *last = strstr(text, "\ncrc32c ");
    if (sscanf(text, "roost-snapshot %u\n", &format) != 1 || last == NULL)
        return ERR_CORRUPT;
    if (format > 1)
        return ERR_NEWER;
    size_t size = (size_t)(last + 1 - text);
    if (sscanf(last + 1, "crc32c %8" SCNx32, &crc) != 1 || crc != crc32c(0, bytes_of(text, size)))
        return ERR_CORRUPT;
    int fields =
        sscanf(text,
               "roost-snapshot 1 made_ms %" SCNu64 " version %63s catalog_bytes %" SCNu64
               " catalog_crc32c %" SCNx32 " damaged_ranges %" SCNu64 " lanes %" SCNu32,
               &m->made_ms, m->version, &m->catalog_bytes, &m->catalog_crc, &m->damaged, &m->lanes);
    if (fields != 6 || m->lanes == 0 || m->lanes > LANES_MAX)
        return ERR_CORRUPT;
    const char *line = text;
    for (uint32_t i = 0; i < m->lanes; i++) {
        uint32_t number;
        line = strstr(line, "\nlane ");
        if (line == NULL ||
            sscanf(++line, "lane %" SCNu32 " %" SCNx64 " %" SCNx64, &number, &m->checkpoints[i],
                   &m->ends[i]) != 3 ||
            number != i)
            return ERR_CORRUPT;
    }
    return OK;
}

static enum err manifest_read(struct manifest *m, const char *snapshot)
{
    char path[PATH_BYTES];
    char text[MANIFEST_BYTES + 1];
    size_t done = 0;
    int fd;
    TRY(path_of(path, snapshot, MANIFEST_NAME));
    TRY(file_open(&fd, path, FILE_READ));
    enum err err = file_read(fd, 0, (uint8_t *)text, MANIFEST_BYTES, &done);
    file_close(fd);
    TRY(err);
    text[done] = 0;
    return manifest_parse(m, text);
}

/* ---- snapshot */

/* file_crc: size and CRC-32C of a file. */
static enum err file_crc(const char *path, uint64_t *size, uint32_t *crc)
{
    int fd;
    *size = 0;
    *crc = 0;
    uint8_t *data = memory_take(1u << 20, MEMORY_STORE);
    if (data == NULL)
        return ERR_NO_MEMORY;
    enum err err = file_open(&fd, path, FILE_READ);
    if (err != OK)
        goto fail_open;
    size_t done = 1;
    while (err == OK && done != 0) {
        err = file_read(fd, *size, data, 1u << 20, &done);
        *crc = crc32c(*crc, bytes_of(data, done));
        *size += done;
    }
    file_close(fd);
fail_open:
    memory_give(data, MEMORY_STORE);
    return err;
}

/* forget_locks: what opening a catalog leaves beside data.mdb. */
static enum err forget_locks(const char *directory)
{
    static const char *const names[] = {"lock.mdb", "owner"};
    char path[PATH_BYTES];
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        TRY(path_of(path, directory, names[i]));
        enum err err = file_remove(path);
        if (err != OK && err != ERR_NOT_FOUND)
            return err;
    }
    return file_sync_directory(directory);
}

static enum err copy_catalog(const char *data, const char *target, struct manifest *m,
                             char *explanation)
{
    char source[PATH_BYTES];
    char directory[PATH_BYTES];
    char path[PATH_BYTES];
    const char *why = "";
    struct catalog *catalog;
    struct checkpoint_meta meta;
    TRY(path_of(source, data, "catalog"));
    TRY(path_of(directory, target, "catalog"));
    TRY(path_of(path, target, "catalog/data.mdb"));
    enum err err = catalog_open_beside(&catalog, source, &why);
    if (err != OK)
        return inspect_explain(explanation, err, "%s: %s", source, why);
    err = file_make_private_directory(directory);
    if (err == OK)
        err = catalog_copy(catalog, path);
    catalog_close(catalog);
    if (err != OK)
        return inspect_explain(explanation, err, "%s could not be copied to %s", source, path);
    err = catalog_open_beside(&catalog, directory, &why);
    if (err != OK)
        return inspect_explain(explanation, err, "%s: %s", directory, why);
    err = checkpoint_read_meta(catalog, &meta);
    if (err == OK)
        err = lanes_read(catalog, m->further);
    catalog_close(catalog);
    m->lanes = lanes_count(m->further);
    memcpy(m->checkpoints, meta.positions, sizeof m->checkpoints);
    if (err == OK && m->lanes > LANES_MAX)
        err = ERR_CORRUPT;
    if (err == OK)
        err = forget_locks(directory);
    if (err == OK)
        err = file_crc(path, &m->catalog_bytes, &m->catalog_crc);
    return err == OK ? OK : inspect_explain(explanation, err, "%s could not be read back", path);
}

/* lane_in: a snapshot's, or a restored store's, directory of a lane. */
static enum err lane_in(char out[PATH_BYTES], const char *directory, uint32_t lane)
{
    char name[16] = "log";
    if (lane != 0)
        snprintf(name, sizeof name, "log-%" PRIu32, lane);
    return path_of(out, directory, name);
}

static enum err copy_log(const char *data, const char *target, struct manifest *m, uint32_t lane,
                         const struct snapshot_options *options, char *explanation)
{
    const struct inspect_output *out = options->out;
    char source[LANE_PATH_BYTES];
    char cold[LANE_PATH_BYTES];
    char directory[PATH_BYTES];
    struct log_snapshot_report report;
    lanes_directory(source, data, m->further, lane);
    lanes_cold_directory(cold, options->cold, lane);
    TRY(lane_in(directory, target, lane));
    enum err err = log_snapshot(source, cold[0] == 0 ? NULL : cold, directory, &report);
    if (report.uncovered != 0)
        return inspect_explain(explanation, err,
                               "segment %08" PRIx32
                               " is neither in %s nor in an archive there: where "
                               "store.cold_directory is set, give it with --cold; remove %s first",
                               report.uncovered, source, target);
    if (err != OK)
        return inspect_explain(explanation, err,
                               "%s could not be copied to %s: remove %s and try again", source,
                               directory, target);
    m->ends[lane] = report.end;
    m->damaged += report.damaged;
    if (report.end < m->checkpoints[lane])
        return inspect_explain(explanation, ERR_CORRUPT,
                               "%s ends at %016" PRIx64
                               ", before the catalog's checkpoint %016" PRIx64
                               ": run roost log verify %s",
                               source, report.end, m->checkpoints[lane], source);
    inspect_print(out,
                  "log            up to %016" PRIx64 ": %" PRIu64 " files linked, %" PRIu64
                  " copied (%" PRIu64 " bytes)",
                  report.end, report.linked, report.copied, report.copied_bytes);
    if (report.damaged != 0)
        inspect_print(out,
                      "warning        %" PRIu64
                      " damaged ranges are in it as they are: run roost log verify %s",
                      report.damaged, source);
    return OK;
}

enum err store_snapshot(const char *data, const char *target,
                        const struct snapshot_options *options,
                        char explanation[INSPECT_EXPLANATION_BYTES])
{
    struct manifest m = {.made_ms = options->now_ms};
    snprintf(m.version, sizeof m.version, "%.63s", ROOST_VERSION);
    enum err err = file_make_private_directory(target);
    if (err != OK)
        return inspect_explain(explanation, err,
                               err == ERR_EXISTS
                                   ? "%s is there already: name a new directory"
                                   : "%s cannot be made: does the directory above it exist?",
                               target);
    inspect_explain(explanation, ERR_TOO_BIG, "%s: the path is too long", target);
    TRY(copy_catalog(data, target, &m, explanation));
    for (uint32_t i = 0; i < m.lanes; i++)
        TRY(copy_log(data, target, &m, i, options, explanation));
    err = manifest_write(target, &m);
    if (err != OK)
        return inspect_explain(explanation, err, "%s/%s could not be written", target,
                               MANIFEST_NAME);
    inspect_print(options->out, "catalog        checkpoint %016" PRIx64 ", %" PRIu64 " bytes",
                  m.checkpoints[0], m.catalog_bytes);
    inspect_print(options->out,
                  "snapshot       %s: complete. It has no keys, but password hashes: guard it.",
                  target);
    return OK;
}

/* ---- restore */

struct restoring {
    const char *source;
    const char *target;
};

static enum err copy_entry(void *context, const char *name)
{
    const struct restoring *r = context;
    char source[PATH_BYTES + 64];
    char target[PATH_BYTES + 64];
    if (strlen(name) >= 60)
        return ERR_TOO_BIG;
    snprintf(source, sizeof source, "%s/%s", r->source, name);
    snprintf(target, sizeof target, "%s/%s", r->target, name);
    return file_copy(source, target, UINT64_MAX, NULL);
}

static enum err any_entry(void *context, const char *name)
{
    (void)name;
    *(bool *)context = true;
    return OK;
}

static void tell_finding(void *context, const char *line)
{
    const struct inspect_output *out = context;
    inspect_print(out, "log            %s", line);
}

static enum err restore_catalog(const char *snapshot, const char *target, const struct manifest *m,
                                char *explanation)
{
    char source[PATH_BYTES];
    char directory[PATH_BYTES];
    char path[PATH_BYTES];
    const char *why = "";
    uint64_t size = 0;
    uint32_t crc = 0;
    struct catalog *catalog;
    struct checkpoint_meta meta;
    TRY(path_of(source, snapshot, "catalog/data.mdb"));
    TRY(path_of(directory, target, "catalog"));
    TRY(path_of(path, target, "catalog/data.mdb"));
    TRY(file_make_private_directory(directory));
    enum err err = file_copy(source, path, UINT64_MAX, NULL);
    if (err == OK)
        err = file_crc(path, &size, &crc);
    if (err != OK)
        return inspect_explain(explanation, err, "%s could not be copied", source);
    if (size != m->catalog_bytes || crc != m->catalog_crc)
        return inspect_explain(
            explanation, ERR_CORRUPT,
            "%s is not what the manifest says: the snapshot is damaged, use another", source);
    err = catalog_open(&catalog, directory, MAP_BYTES, &why);
    if (err != OK)
        return inspect_explain(explanation, err, "%s: %s", directory, why);
    err = checkpoint_read_meta(catalog, &meta);
    if (err == OK && memcmp(meta.positions, m->checkpoints, sizeof meta.positions) != 0)
        err = ERR_CORRUPT;
    if (err == OK)
        err = lanes_write(catalog, m->further);
    catalog_close(catalog);
    if (err != OK)
        return inspect_explain(explanation, err, "%s: its checkpoint is not the manifest's",
                               directory);
    return forget_locks(directory);
}

/* find_end: of the newest batch. */
static enum err find_end(void *context, const struct scan *scan, const struct scan_item *item)
{
    if (item->kind == SCAN_BATCH)
        *(uint64_t *)context = position_of(scan->header.id, item->to);
    return OK;
}

static enum err check_log(const char *directory, uint64_t end_expected,
                          const struct snapshot_options *options, char *explanation)
{
    struct walk walk;
    uint64_t end = 0;
    union {
        const struct inspect_output *in;
        void *out;
    } context = {.in = options->out};
    enum err err = log_verify(directory, NULL, tell_finding, context.out);
    if (err == ERR_CORRUPT && options->accept_damage)
        err = OK;
    if (err != OK)
        return inspect_explain(
            explanation, err,
            "the snapshot's log is damaged as told above: use another, or restore what is "
            "sound with --accept-damage (clients are told which messages are missing)");
    const struct walk_visitor visitor = {.context = &end, .item = find_end};
    TRY(walk_open(&walk, directory, NULL));
    err = walk_records(&walk, &visitor);
    walk_close(&walk);
    if (err == OK && end != end_expected && !options->accept_damage && end_expected != 0)
        return inspect_explain(explanation, ERR_CORRUPT,
                               "the snapshot's log ends at %016" PRIx64 " and not at %016" PRIx64
                               ": files are missing",
                               end, end_expected);
    return err;
}

static enum err restore_log(const char *snapshot, const char *target, const struct manifest *m,
                            uint32_t lane, const struct snapshot_options *options,
                            char *explanation)
{
    char source[PATH_BYTES];
    char directory[PATH_BYTES];
    struct restoring r = {source, directory};
    TRY(lane_in(source, snapshot, lane));
    TRY(lane_in(directory, target, lane));
    TRY(file_make_private_directory(directory));
    enum err err = file_list(source, copy_entry, &r);
    if (err == OK)
        err = file_sync_directory(directory);
    if (err != OK)
        return inspect_explain(explanation, err, "%s could not be copied to %s", source, directory);
    return check_log(directory, m->ends[lane], options, explanation);
}

/* lanes_of_target: where a restored store's further lanes are: in its own directory. */
static enum err lanes_of_target(struct manifest *m, const char *target)
{
    char directory[PATH_BYTES];
    size_t size = 0;
    m->further[0] = 0;
    for (uint32_t i = 1; i < m->lanes; i++) {
        TRY(lane_in(directory, target, i));
        int more = snprintf(m->further + size, sizeof m->further - size, "%s%s", i == 1 ? "" : ", ",
                            directory);
        size += (size_t)more;
        if (size >= sizeof m->further)
            return ERR_TOO_BIG;
    }
    return OK;
}

static enum err restore_all(const char *snapshot, const char *working, const char *target,
                            struct manifest *m, const struct snapshot_options *options,
                            char *explanation)
{
    struct secrets secrets;
    enum err err = manifest_read(m, snapshot);
    if (err != OK)
        return inspect_explain(explanation, err,
                               "%s is no complete snapshot: its manifest is missing or damaged",
                               snapshot);
    err = file_make_private_directory(working);
    if (err != OK)
        return inspect_explain(explanation, err,
                               err == ERR_EXISTS
                                   ? "%s is left from an earlier attempt: remove it"
                                   : "%s cannot be made: does the directory above it exist?",
                               working);
    inspect_explain(explanation, ERR_IO, "%s could not be written", working);
    TRY(lanes_of_target(m, target));
    TRY(restore_catalog(snapshot, working, m, explanation));
    for (uint32_t i = 0; i < m->lanes; i++)
        TRY(restore_log(snapshot, working, m, i, options, explanation));
    TRY(secrets_load(&secrets, working, options->entropy, NULL, options->now_ms, explanation,
                     INSPECT_EXPLANATION_BYTES));
    OPENSSL_cleanse(&secrets, sizeof secrets);
    return OK;
}

enum err store_restore(const char *snapshot, const char *target,
                       const struct snapshot_options *options,
                       char explanation[INSPECT_EXPLANATION_BYTES])
{
    char working[PATH_BYTES];
    struct manifest m;
    bool any = false;
    enum err err = file_list(target, any_entry, &any);
    if (any || (err != OK && err != ERR_NOT_FOUND))
        return inspect_explain(explanation, any ? ERR_EXISTS : err,
                               "%s is not empty: restore into a new directory", target);
    if (strlen(target) >= STORE_PATH_BYTES - 32)
        return inspect_explain(explanation, ERR_TOO_BIG, "%s: the path is too long", target);
    snprintf(working, sizeof working, "%s.restoring", target);
    TRY(restore_all(snapshot, working, target, &m, options, explanation));
    err = file_rename(working, target);
    char parent[PATH_BYTES];
    snprintf(parent, sizeof parent, "%s/..", target);
    if (err == OK)
        err = file_sync_directory(parent);
    if (err != OK)
        return inspect_explain(explanation, err, "%s could not be renamed to %s", working, target);
    inspect_print(
        options->out,
        "restored       %s: a store with an epoch of its own. Clients are told and resync; "
        "keys are new, so tokens from before do not hold.",
        target);
    if (m.lanes > 1)
        inspect_print(
            options->out,
            "lanes          before the start: store.lane_directories = %s (with the whole "
            "path from /; or move them and name where they are then)",
            m.further);
    return OK;
}
