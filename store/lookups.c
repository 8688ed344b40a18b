/* lookups.c: which sealed segments and archives have their look-up (places.h) in memory: the
 * newest, as far as options.lookup_bytes goes: a page of late history wants all of these, one of
 * early history finds its archive without. A segment is given one when it is sealed or loaded, an
 * archive when it was made, and when a read comes to it and there is room. */
#include "store/log_private.h"

size_t lane_lookup_room(const struct log *log, uint32_t id)
{
    uint64_t room = log->options.lookup_bytes;
    for (uint32_t i = log->segment_count; i-- > 0 && log->segments[i]->id > id;) {
        const struct places *places = log->segments[i]->places;
        if (places != NULL)
            room = places->memory < room ? room - places->memory : 0;
    }
    return (size_t)room;
}

void lane_lookups_evict(struct log *log)
{
    uint64_t bytes = 0;
    for (uint32_t i = log->segment_count; i-- > 0;) {
        struct lane_segment *segment = log->segments[i];
        if (segment->places == NULL)
            continue;
        bytes += segment->places->memory;
        if (bytes <= log->options.lookup_bytes)
            continue;
        bytes -= segment->places->memory;
        places_destroy(segment->places);
        segment->places = NULL;
        lane_count(log, METRIC_LOG_LOOKUPS_EVICTED, 1);
    }
    if (log->metrics != NULL)
        metric_set(log->metrics, METRIC_LOG_LOOKUP_BYTES, (int64_t)bytes);
}
