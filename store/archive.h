/* archive.h: a file of merged segments, sorted by conversation: block codec, what of it stays in
 * memory, and look-ups; bytes in, bytes out, but for loading.
 * Flow:       archive_write.c writes it → archive_load (worker) → reader_archive.c looks up;
 *             archive_walk.c walks it for the next merge, for verification and for replay
 * Owns:       a loaded archive owns its descriptor and memory
 * Invariants: immutable once it has its name; nothing is decoded whose checksum does not fit its
 *             archive and offset
 * Failure:    ERR_CORRUPT; ERR_NEWER: written by a later version
 * Bounds:     resident: 24 B per 56 conversations, 48 B per 101 data blocks (of 32 KiB), 8 B per
 *             508 records, about 10 to 20 bits per conversation
 * Format:     byte by byte in archive.c */
#ifndef STORE_ARCHIVE_H
#define STORE_ARCHIVE_H

#include "store/segment.h"

#define ARCHIVE_VERSION         6
#define ARCHIVE_HEADER_BYTES    4096u
#define ARCHIVE_FOOTER_BYTES    152u
#define ARCHIVE_HEAD_BYTES      32u         /* before each block's content */
#define ARCHIVE_PAGE_BYTES      4096u       /* directory, table and print blocks, head included */
#define ARCHIVE_DATA_BYTES      (32u << 10) /* records of one data block, before compression */
#define ARCHIVE_RAW_MAX         (256u << 20)
#define ARCHIVE_NAME_BYTES      40
#define ARCHIVE_ENTRY_BYTES     72u
#define ARCHIVE_ROW_BYTES       40u
#define ARCHIVE_PRINT_BYTES     8u
#define ARCHIVE_PAGE_ENTRIES    56u
#define ARCHIVE_PAGE_ROWS       101u
#define ARCHIVE_PAGE_PRINTS     508u
#define ARCHIVE_DIRECTORY_FENCE 24u
#define ARCHIVE_TABLE_FENCE     48u
#define ARCHIVE_FILTER_MAX      (64u << 20)

struct archive_header {
    uint32_t lane;
    uint32_t first; /* segment ids that it stands for */
    uint32_t last;
    uint32_t level;      /* 1: of segments; n: of archives of level n - 1 */
    uint32_t generation; /* of several with the same range the highest counts */
    uint32_t data_end;   /* of the last segment: end of its last batch; 0: not known */
    uint64_t nonce;
    uint64_t created_ms;
};

struct archive_footer {
    uint64_t summary;        /* offset of the summary block */
    uint64_t bytes;          /* of the file */
    uint64_t records;        /* with sequence numbers */
    uint64_t settings;       /* of them, those that set a conversation's retention */
    uint64_t watermarks;     /* marks with one */
    uint64_t gone;           /* ranges */
    uint64_t named;          /* of them, messages whose ids are kept */
    uint64_t named_until_ms; /* all of those are; 0: there are none */
    uint64_t conversations;
    uint64_t damaged;     /* records lost to damage while it was written */
    uint64_t time_min_ms; /* of its records but the settings; 0: there are none */
    uint64_t time_max_ms;
    uint64_t expires_min_ms; /* 0: nothing in it expires */
    uint32_t data_blocks;
    uint32_t directory_blocks;
    uint32_t table_blocks;
    uint32_t print_blocks;
    uint32_t filter_bytes; /* a power of two */
};

enum archive_kind {
    ARCHIVE_DATA = 1,
    ARCHIVE_DIRECTORY = 2,
    ARCHIVE_TABLE = 3,
    ARCHIVE_PRINTS = 4,
    ARCHIVE_SUMMARY = 5,
    ARCHIVE_STATES = 6,
};

enum archive_codec { ARCHIVE_PLAIN = 0, ARCHIVE_ZSTD = 1 };

struct archive_block {
    enum archive_kind kind;
    enum archive_codec codec;
    uint32_t stored; /* bytes of content as they stand in the file */
    uint32_t raw;    /* bytes of content decompressed */
    uint32_t count;
    uint32_t number; /* within its kind, from 0 */
    uint32_t crc;    /* of the content */
};

/* archive_entry: what an archive has of one conversation. */
struct archive_entry {
    struct conversation_id conversation;
    uint64_t first_seq; /* 0: no records, only a state */
    uint64_t last_seq;
    uint64_t offset;      /* of the first data block */
    uint32_t stored;      /* bytes of that block, head included */
    uint32_t first_block; /* its number */
    uint32_t blocks;
    uint32_t records;
    uint64_t first_print; /* ordinal */
    uint32_t prints;
};

/* archive_row: one data block. */
struct archive_row {
    struct conversation_id conversation; /* of its first record */
    uint64_t seq;                        /* of its first record */
    uint64_t offset;
    uint32_t bytes; /* head included */
    uint32_t count;
};

struct archive_print {
    uint32_t print;
    uint32_t block; /* number of the data block that has the record */
};

struct archive {
    int fd;
    struct archive_header header;
    struct archive_footer footer;
    struct segment_key key;
    size_t memory;       /* bytes resident */
    bool header_damaged; /* its first block is: header is from the name and the footer */
    bool footer_damaged; /* archive_salvage only: of the footer only `bytes` holds */
    /* private: the summary's parts */
    uint8_t *summary;
    const uint8_t *directory_fences;
    const uint8_t *table_fences;
    const uint8_t *print_offsets;
    const uint8_t *filter;
};

/* RECORD_GONE, only in archives: the numbers seq … gone_range.last no longer exist. One that was
 * removed while a repeat of it may come keeps realm, sender, device, id and time in the record's
 * header until expires_ms (gone_named): its content is gone all the same. */
enum gone_reason { GONE_EXPIRED = 1, GONE_RETENTION = 2, GONE_DAMAGED = 3 };
#define GONE_BODY_BYTES 16u
struct gone_range {
    uint64_t last;
    enum gone_reason reason;
    uint16_t kind; /* what the message was that is named; 0: none is */
};
void gone_encode(uint8_t out[GONE_BODY_BYTES], const struct gone_range *gone);
/* gone_decode: of a RECORD_GONE's seq and body. ERR_CORRUPT. */
MUST_USE enum err gone_decode(struct gone_range *gone, const struct log_record *record);
static inline bool gone_named(const struct log_record *record)
{
    return record->kind == RECORD_GONE && message_id_given(record->message_id);
}
/* gone_name: what is left of a record: all but its content, until until_ms; body is the result's.
 */
struct log_record gone_name(uint8_t body[GONE_BODY_BYTES], const struct log_record *record,
                            enum gone_reason reason, uint64_t until_ms);
/* gone_given: what a replay takes a RECORD_GONE for, since the numbers were given all the same: one
 * that is named for a message without content, else the last one for lost. ERR_CORRUPT. */
MUST_USE enum err gone_given(struct log_record *given, const struct log_record *record);

/* archive_name: "<first>-<last>-<generation>" and suffix (".archive", ".archiving"). */
void archive_name(char out[ARCHIVE_NAME_BYTES], const struct archive_header *header,
                  const char *suffix);
/* archive_name_parse: fills first, last and generation. ERR_INVALID: not a name of that suffix. */
MUST_USE enum err archive_name_parse(struct archive_header *header, const char *name,
                                     const char *suffix);

struct segment_key archive_key(const struct archive_header *header);
void archive_header_encode(uint8_t out[ARCHIVE_HEADER_BYTES], const struct archive_header *header);
MUST_USE enum err archive_header_decode(struct archive_header *header,
                                        const uint8_t block[ARCHIVE_HEADER_BYTES]);
void archive_footer_encode(uint8_t out[ARCHIVE_FOOTER_BYTES], const struct archive_footer *footer,
                           const struct archive_header *header);
MUST_USE enum err archive_footer_decode(struct archive_footer *footer,
                                        const uint8_t in[ARCHIVE_FOOTER_BYTES],
                                        const struct archive_header *header);
/* archive_footer_header: what a footer repeats of the header; not checked. */
void archive_footer_header(struct archive_header *header, const uint8_t in[ARCHIVE_FOOTER_BYTES]);

/* archive_head_encode: ARCHIVE_HEAD_BYTES for the content that follows at offset. */
void archive_head_encode(uint8_t *out, struct archive_block *block, struct bytes content,
                         const struct segment_key *key, uint64_t offset);
/* archive_head_decode: ARCHIVE_HEAD_BYTES found at offset. */
MUST_USE enum err archive_head_decode(struct archive_block *block, const uint8_t *head,
                                      const struct segment_key *key, uint64_t offset);
/* archive_block_decode: data begins at a block's head; *content is its stored content, checked. */
MUST_USE enum err archive_block_decode(struct archive_block *block, struct bytes *content,
                                       struct bytes data, const struct segment_key *key,
                                       uint64_t offset);
/* archive_inflate: content as records: itself, or decompressed into scratch, which grows
 * (memory_give, MEMORY_STORE). ERR_CORRUPT, ERR_NO_MEMORY. */
MUST_USE enum err archive_inflate(struct bytes *raw, const struct archive_block *block,
                                  struct bytes content, struct buffer *scratch);
static inline uint64_t archive_block_end(uint64_t offset, const struct archive_block *block)
{
    return offset + align_up(ARCHIVE_HEAD_BYTES + (size_t)block->stored, 8);
}
/* archive_record_next: take one record off a data block's content. ERR_NOT_FOUND at the end;
 * ERR_CORRUPT. */
MUST_USE enum err archive_record_next(struct log_record *record, struct bytes *encoded,
                                      struct bytes *content, const struct segment_key *key);

void archive_entry_encode(uint8_t out[ARCHIVE_ENTRY_BYTES], const struct archive_entry *entry);
void archive_entry_decode(struct archive_entry *entry, const uint8_t in[ARCHIVE_ENTRY_BYTES]);
/* archive_entry_sound: what it names can be in the archive. */
bool archive_entry_sound(const struct archive *archive, const struct archive_entry *entry);
void archive_row_encode(uint8_t out[ARCHIVE_ROW_BYTES], const struct archive_row *row);
void archive_row_decode(struct archive_row *row, const uint8_t in[ARCHIVE_ROW_BYTES]);

/* ---- archive_load.c */

/* archive_load: open and validate header, footer and summary. ERR_NOT_FOUND, ERR_CORRUPT,
 * ERR_NEWER. Blocking. */
MUST_USE enum err archive_load(struct archive **archive, const char *path);
/* archive_salvage: for archive_walk only: one whose footer or summary is damaged too. ERR_CORRUPT:
 * neither header nor footer can be read: nothing tells its blocks from noise. */
MUST_USE enum err archive_salvage(struct archive **archive, const char *path);
void archive_destroy(struct archive *archive);

uint64_t archive_conversation_hash(const struct segment_key *key, struct conversation_id id);
size_t archive_filter_bit(uint64_t hash, uint32_t probe, size_t filter_bytes);
#define ARCHIVE_FILTER_PROBES 6u
/* archive_may_hold: false: it has nothing of that conversation. */
bool archive_may_hold(const struct archive *archive, struct conversation_id conversation);
/* archive_directory_at: offset of the directory block (ARCHIVE_PAGE_BYTES at most) that has the
 * conversation, if any has; 0: none. */
uint64_t archive_directory_at(const struct archive *archive, struct conversation_id conversation);
/* archive_directory_offset: of the directory block with that number; 0: there is none. */
uint64_t archive_directory_offset(const struct archive *archive, uint32_t number);
/* archive_directory_entries: all of the block read there. ERR_CORRUPT. */
MUST_USE enum err archive_directory_entries(const struct archive *archive, struct bytes read,
                                            uint64_t offset,
                                            struct archive_entry entries[ARCHIVE_PAGE_ENTRIES],
                                            uint32_t *count);
/* archive_directory_find: in the block read there. ERR_NOT_FOUND, ERR_CORRUPT. */
MUST_USE enum err archive_directory_find(const struct archive *archive, struct bytes read,
                                         uint64_t offset, struct conversation_id conversation,
                                         struct archive_entry *entry);
/* archive_table_at: number of the table block that has the data block with the last key at or
 * before (conversation, seq). */
uint32_t archive_table_at(const struct archive *archive, struct conversation_id conversation,
                          uint64_t seq);
uint64_t archive_table_offset(const struct archive *archive, uint32_t number);
/* archive_table_first: the first row of that table block, without its count; false: there is no
 * such block. */
bool archive_table_first(const struct archive *archive, uint32_t number, struct archive_row *row);
/* archive_rows: the table block's rows; returns how many. */
MUST_USE enum err archive_rows(const struct archive *archive, struct bytes read, uint64_t offset,
                               struct archive_row rows[ARCHIVE_PAGE_ROWS], uint32_t *count);
uint64_t archive_prints_offset(const struct archive *archive, uint32_t number);
/* archive_prints: the print block's content, checked. */
MUST_USE enum err archive_prints(const struct archive *archive, struct bytes read, uint64_t offset,
                                 struct bytes *prints);
static inline struct archive_print archive_print_at(struct bytes prints, uint32_t at)
{
    return (struct archive_print){load_u32(prints.data + (size_t)at * ARCHIVE_PRINT_BYTES),
                                  load_u32(prints.data + (size_t)at * ARCHIVE_PRINT_BYTES + 4)};
}

static inline int conversation_order(struct conversation_id a, struct conversation_id b)
{
    if (a.hi != b.hi)
        return a.hi < b.hi ? -1 : 1;
    return a.lo < b.lo ? -1 : a.lo > b.lo;
}

#endif
