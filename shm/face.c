/* tickpath.h as functions that Python calls. */

#include "tickpath.h"

uint64_t tp_face_published_to(uintptr_t slots, uint64_t capacity, uint64_t slot_bytes, uint64_t start)
{
    return tp_published_to((const uint8_t *)slots, capacity, slot_bytes, start);
}

uint64_t tp_face_join(uintptr_t producer, uintptr_t reader)
{
    return tp_join((const struct tp_producer *)producer, (struct tp_reader *)reader);
}

void tp_face_gate(uintptr_t reader, uint64_t position)
{
    tp_gate((struct tp_reader *)reader, position);
}
