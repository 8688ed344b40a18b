/* bench_index.c: what the index of a full unsealed segment of 64 MiB takes per record, by the
 * number of conversations, and the time of adding and of look-ups. Use:        bench_index
 * [--smoke]; records of 256 bytes, in the last line of 1,024. No disk is used Method: conversations
 * at random. Times are of one pass: of their kind, not to the tenth */
#include "core/memory.h"
#include "store/index.h"

#include <stdio.h>
#include <time.h>

#define SEGMENT_BYTES (64u << 20)
#define LOOKS         2000u

static uint64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static struct log_record indexed(uint64_t conversation, uint64_t seq)
{
    struct log_record record = {.kind = RECORD_MESSAGE,
                                .conversation = {1, conversation},
                                .seq = seq,
                                .sender = {7},
                                .device = {1}};
    store_u64(record.message_id.v, seq);
    return record;
}

/* index_fill: conversations at random; returns how many records. */
static uint32_t index_fill(struct index *index, uint64_t *seqs, uint32_t conversations, size_t size)
{
    uint32_t count = 0;
    uint64_t random = 1;
    for (uint32_t at = SEGMENT_DATA_OFFSET; at + size <= SEGMENT_BYTES; at += (uint32_t)size) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint64_t conversation = (random >> 33) % conversations;
        struct log_record record = indexed(conversation, ++seqs[conversation]);
        CHECK(index_add(index, &record, at, (uint32_t)size) == OK);
        count++;
    }
    return count;
}

/* index_looks: nanoseconds per page of the oldest 50 and per look-up of a key. */
static void index_looks(const struct index *index, const struct segment_key *key,
                        uint32_t conversations, double ns[2])
{
    struct index_hit hits[50];
    uint32_t looks = 0;
    bool before;
    for (int find = 0; find < 2; find++) {
        uint64_t began = clock_ns();
        for (looks = 0; looks < LOOKS; looks++) {
            struct log_record record = indexed(looks * 7919ull % conversations, 1);
            if (find == 0) {
                (void)index_range(index, record.conversation, 1, UINT32_MAX, hits, COUNT_OF(hits),
                                  &before);
                continue;
            }
            uint32_t print = segment_print(key, record.conversation, record.sender, record.device,
                                           record.message_id);
            (void)index_find(index, record.conversation, print, UINT32_MAX, hits, COUNT_OF(hits));
        }
        ns[find] = (double)(clock_ns() - began) / looks;
    }
}

static void index_line(uint32_t conversations, size_t body)
{
    const struct segment_header header = {.id = 1, .bytes = SEGMENT_BYTES, .nonce = 1};
    const struct segment_key key = segment_key_of(&header);
    uint64_t *seqs = memory_take_zeroed(conversations * sizeof *seqs, MEMORY_STORE);
    struct index *index;
    double ns[2];
    CHECK(seqs != NULL && index_create(&index, &key, header.bytes) == OK);
    uint64_t began = clock_ns();
    uint32_t records = index_fill(index, seqs, conversations, record_bytes(body));
    double add_ns = (double)(clock_ns() - began) / records;
    index_looks(index, &key, conversations, ns);
    printf("index of 64 MiB, body %4zu: %6u records in %6u conversations: %5.1f B per record; "
           "adding %4.0f ns, oldest 50 %5.0f ns, by key %6.0f ns\n",
           body, records, index->conversation_count, (double)index_memory(index) / records, add_ns,
           ns[0], ns[1]);
    index_destroy(index);
    memory_give(seqs, MEMORY_STORE);
}

int main(int argc, char **argv)
{
    static const uint32_t conversations[] = {1, 1000, 20000, 200000};
    bool smoke = argc == 2 && strcmp(argv[1], "--smoke") == 0;
    if (argc > 1 && !smoke) {
        fprintf(stderr, "use: bench_index [--smoke]\n");
        return 2;
    }
    for (size_t i = 0; i < (smoke ? 1 : COUNT_OF(conversations)); i++)
        index_line(conversations[i], 256);
    index_line(1000, 1024);
    return 0;
}
