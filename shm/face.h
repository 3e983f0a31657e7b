/* The ring's protocol as functions that Python calls (shm/face.c). Addresses are integers, since Python holds them as such. */

uint64_t tp_face_published_to(uintptr_t slots, uint64_t capacity, uint64_t slot_bytes, uint64_t start);
uint64_t tp_face_join(uintptr_t producer, uintptr_t reader);
void tp_face_gate(uintptr_t reader, uint64_t position);
