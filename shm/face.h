#pragma once

/* The ring's protocol as functions that Python calls (shm/face.c). Addresses are integers, since Python holds them as such. */

uint64_t tp_face_published_to(uintptr_t slots, uint64_t capacity, uint64_t slot_bytes, uint64_t start);
uint64_t tp_face_join(uintptr_t producer, uintptr_t reader);
void tp_face_gate(uintptr_t reader, uint64_t position);

#define TP_FACE_EMPTY    -1
#define TP_FACE_REFUSED  -2
#define TP_FACE_USED_UP  -3

#define TP_FACE_WRITES    0
#define TP_FACE_GATES     1
#define TP_FACE_OBSERVES  2

/* One end of a ring as plain Python holds it: private to the process.
 *
 * slots .. local      addresses and shape, as in struct tp_producer_end and struct tp_reader_end (shm/tickpath.h)
 * stage               one record: what is pushed next, or was polled last as bytes
 * rows, row_count     records that polled messages are put into, each of them once; `row` is the next
 * lost_now, from      messages missing before the first one that the last call returned, and where they began
 * pending, from       messages missing before the next one
 * beaten              TSC of the last heartbeat
 * spin_ns, idle_ns    how long a wait spins before it sleeps, and how long this one has lasted
 */
struct tp_face {
    uint64_t slots;
    uint64_t capacity;
    uint64_t slot_bytes;
    uint64_t readers;
    uint64_t reader_count;
    uint64_t producer;
    uint64_t block;
    uint64_t local;
    uint64_t kind;
    uint64_t stage;
    uint64_t rows;
    uint64_t row_count;
    uint64_t row;
    uint64_t lost_now;
    uint64_t lost_from;
    uint64_t pending;
    uint64_t pending_from;
    uint64_t beaten;
    uint64_t spin_ns;
    uint64_t idle_ns;
};

/* The staged record: 1 where it was published, 0 where there is no room (or the role is lost: tp_face_is_fenced). */
int tp_face_push(struct tp_face *face);
/* How many of `count` rows were published. A row is a whole record, or a payload without the sequence. */
uint64_t tp_face_push_many(struct tp_face *face, const char *rows, uint64_t row_bytes, uint64_t count);
/* 1: there is room; TP_FACE_EMPTY: not within `ns`; TP_FACE_REFUSED: the role is lost. */
int tp_face_await_room(struct tp_face *face, uint64_t ns);
void tp_face_drop(struct tp_face *face, uint64_t count);

/* Each of these first gives back what the calls before have read.
 * The next message's row, TP_FACE_EMPTY, TP_FACE_REFUSED, or TP_FACE_USED_UP: new rows are needed. */
int tp_face_poll(struct tp_face *face);
/* The next message into `stage`: 1, TP_FACE_EMPTY or TP_FACE_REFUSED. */
int tp_face_poll_stage(struct tp_face *face);
/* How many messages were put into `rows`, in order and without a gap between them, or TP_FACE_REFUSED. */
int64_t tp_face_poll_many(struct tp_face *face, char *rows, uint64_t row_bytes, uint64_t count);
/* The same three, waiting for `ns` at most; tp_face_await leaves the message where it is. */
int tp_face_poll_within(struct tp_face *face, uint64_t ns);
int tp_face_poll_stage_within(struct tp_face *face, uint64_t ns);
int tp_face_await(struct tp_face *face, uint64_t ns);
/* 1, or 0 where the role is lost. */
int tp_face_release(struct tp_face *face);
uint64_t tp_face_conflate(struct tp_face *face);
uint64_t tp_face_restarts(struct tp_face *face);
uint64_t tp_face_backlog(struct tp_face *face);

int tp_face_is_fenced(struct tp_face *face);
/* The role is lost, to every end that shares this one's `local`, and shared memory is not touched again. */
void tp_face_close(struct tp_face *face);

/* A board's lines (whole records, the version first). Read: 1, or 0 where it was never written, or its writer was at it all the while. */
void tp_face_board_write(uintptr_t line, const char *record, uint64_t bytes);
int tp_face_board_read(uintptr_t line, char *copy, uint64_t bytes);
