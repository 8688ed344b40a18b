/* archive_write.h: writes one archive, record by record, in one pass.
 * Flow:       merge.c (worker) → archive_writer_add … → archive_writer_finish → file, synced
 * Owns:       its descriptor, one block of records, what of the index is not written yet
 * Invariants: conversations ascend; within one sequence numbers do; its state comes last (CHECKed)
 * Failure:    ERR_NO_SPACE, ERR_IO, ERR_NO_MEMORY: the file is no archive: remove it
 * Bounds:     memory: WRITER_OUT_BYTES, twice a block of records, the states of up to a directory
 *             block's conversations and of those in the block being filled, the summary (archive.h)
 */
#ifndef STORE_ARCHIVE_WRITE_H
#define STORE_ARCHIVE_WRITE_H

#include "store/archive.h"
#include "store/archive_state.h"

#define WRITER_OUT_BYTES (256u << 10)

struct archive_writer;

/* archive_writer_create: begins the file at path, which must not matter. conversations_max: for the
 * filter's size. compress: data blocks are kept in zstd where that saves at least an eighth. */
MUST_USE enum err archive_writer_create(struct archive_writer **writer, const char *path,
                                        const struct archive_header *header,
                                        uint64_t conversations_max, bool compress);
MUST_USE enum err archive_writer_add(struct archive_writer *writer,
                                     const struct log_record *record);
/* archive_writer_state: what is kept of the conversation beside its records, after the last of
 * them; numbers and, where the records tell a newer one, time are filled in. Without: an empty one.
 */
MUST_USE enum err archive_writer_state(struct archive_writer *writer,
                                       const struct archive_state *state,
                                       const struct archive_mark *marks);
/* archive_writer_finish: all that is gathered, summary, footer, sync. `damaged` goes into the
 * footer. *footer may be NULL. */
MUST_USE enum err archive_writer_finish(struct archive_writer *writer, uint64_t damaged,
                                        struct archive_footer *footer);
void archive_writer_destroy(struct archive_writer *writer);
/* archive_writer_bytes: written so far. */
uint64_t archive_writer_bytes(const struct archive_writer *writer);

#endif
