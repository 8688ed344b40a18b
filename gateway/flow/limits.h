/* limits.h: flow's fixed sizes, each with its reason. What an operator may want to change is in
 * config.h instead. */
#ifndef GATEWAY_FLOW_LIMITS_H
#define GATEWAY_FLOW_LIMITS_H

#define SHARDS_MAX           256  /* border.source is 16 bits; a larger box uses 256 of its cores */
#define LANES_MAX            8    /* of the log; a metrics block and some descriptors each */
#define EVENTS_PER_TURN      1024 /* completions looked at in one turn: 1,024 × 112 B = 112 KiB */
#define RECEIVE_BUFFER_BYTES 16384 /* one TLS record's worth */
#define RECEIVE_BUFFERS                                                                            \
    512 /* per shard: 8 MiB; more connections with bytes in motion wait a turn */
#define PLAINTEXT_BYTES                                                                            \
    (RECEIVE_BUFFER_BYTES + 16384 +                                                                \
     512) /* what one receive can open to, with a buffered part record before it */
#define FRAME_BYTES                                                                                \
    (64 * 1024) /* elements gathered into one WebSocket message before the next is begun */
#define PULL_BYTES          (32 * 1024) /* answer asked for when catching up: rings hold many */
#define PULL_RECORDS        256
#define HISTORY_RECORDS_MAX 256         /* messages of one answer to Range */
#define PULLED_OVERHEAD     256         /* border_pulled and mesh header */
#define RELAY_BYTES         (16 * 1024) /* of one message between the ends of a relay */
#define CHECKPOINT_ROWS                                                                            \
    512 /* rows of one catalog job: bounds the writer's transaction and the job's memory */
#define ACCEPTS_ARMED  64 /* one-shot accepts per listener: 64 × 28 B address buffers */
#define ADMIN_ACCEPTS  4
#define ADMIN_EXTRA    8 /* the operator gets in when clients have taken every slot */
#define EVICT_PER_TURN 64
#define EVICT_CELLS                                                                                \
    1024 /* of the table looked at for that: where most are empty, some us a turn                  \
          */
#define REQUESTS_MAX                                                                               \
    1024 /* upper bound of limits.requests_per_frame: the decoded array lives in the shard */
#define RETRY_MS_MIN     20 /* told where no place is free: a round trip, not a storm of them */
#define RETRY_MS_MAX     30000
#define RETRY_GAP_NS_MIN 20000 /* between two that are told: 50,000 of them a second ask again */
#define LARGE_BYTES      1024  /* a token or goodbye text beside the payload */

#endif
