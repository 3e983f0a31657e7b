/* The roles for C++17: opened by a constructor that throws, closed by the destructor, records of one type. A wrapper, and nothing more. */
#pragma once

#include "tickpath.h"

#include <chrono>
#include <optional>
#include <stdexcept>
#include <type_traits>

namespace tickpath {

/* A record begins with the ring's 8-byte sequence, its first own field is at offset 8, and it is whole cache lines. */
template <typename Record>
struct Checked {
    static_assert(std::is_standard_layout_v<Record> && std::is_trivially_copyable_v<Record>, "a record is plain bytes");
    static_assert(sizeof(Record) % TP_LINE_BYTES == 0, "a record is whole cache lines");
    static_assert(offsetof(Record, sequence) == 0 && sizeof(Record::sequence) == 8, "the sequence is the first word");
};

inline uint64_t nanoseconds(std::chrono::nanoseconds time)
{
    return time.count() < 0 ? 0 : static_cast<uint64_t>(time.count());
}

inline void check(int problem, const tp_error &error)
{
    if (problem != 0)
        throw std::runtime_error(error.text);
}

template <typename Record>
class Producer : Checked<Record> {
public:
    explicit Producer(const char *ring, uint64_t schema_hash = 0)
    {
        const tp_expect expect = {sizeof(Record), schema_hash, 0};
        tp_error error;
        check(tp_open_producer(&role_, ring, &expect, &error), error);
    }
    ~Producer() { tp_close_producer(&role_); }
    Producer(const Producer &) = delete;
    Producer &operator=(const Producer &) = delete;

    /* The next slot to fill, or nullptr where the ring is full. */
    Record *claim() { return static_cast<Record *>(tp_claim(&role_.end)); }
    Record *claim(std::chrono::nanoseconds timeout) { return static_cast<Record *>(tp_claim_within(&role_.end, nanoseconds(timeout))); }
    void commit() { tp_commit(&role_.end); }

    /* Publish a record by the ring's own rule for a full one; whether it was. */
    bool push(const Record &record, std::chrono::nanoseconds timeout)
    {
        const auto *payload = reinterpret_cast<const unsigned char *>(&record) + 8;
        return tp_push(&role_, payload, sizeof(Record) - 8, nanoseconds(timeout)) == TP_GOT;
    }

private:
    tp_producer_role role_;
};

template <typename Record>
class Consumer : Checked<Record> {
public:
    Consumer(const char *ring, const char *reader, uint64_t schema_hash = 0)
    {
        const tp_expect expect = {sizeof(Record), schema_hash, 0};
        tp_error error;
        check(tp_open_reader(&role_, ring, reader, &expect, &error), error);
    }
    ~Consumer() { tp_close_reader(&role_); }
    Consumer(const Consumer &) = delete;
    Consumer &operator=(const Consumer &) = delete;

    /* The next unread record, or nullptr. It stays readable until release. */
    const Record *poll() { return static_cast<const Record *>(tp_poll(&role_.end)); }
    const Record *poll(std::chrono::nanoseconds timeout)
    {
        return static_cast<const Record *>(tp_poll_within(&role_.end, nanoseconds(timeout)));
    }
    void advance() { tp_advance(&role_.end); }
    void release() { tp_release(&role_.end); }

private:
    tp_reader_role role_;
};

template <typename Record>
class Observer : Checked<Record> {
public:
    explicit Observer(const char *ring, tp_start start = TP_NEWEST, uint64_t schema_hash = 0)
    {
        const tp_expect expect = {sizeof(Record), schema_hash, 0};
        tp_error error;
        check(tp_open_observer(&role_, ring, nullptr, start, 0, &expect, &error), error);
    }
    ~Observer() { tp_close_reader(&role_); }
    Observer(const Observer &) = delete;
    Observer &operator=(const Observer &) = delete;

    /* A whole copy of the next record; nothing where none came in time. What was overwritten first is in lost(). */
    std::optional<Record> next(std::chrono::nanoseconds timeout)
    {
        Record record;
        int got = TP_LAPPED;
        while (got == TP_LAPPED)
            got = tp_observe_within(&role_.end, &record, nanoseconds(timeout));
        return got == TP_GOT ? std::optional<Record>(record) : std::nullopt;
    }
    uint64_t lost() const { return role_.words[TP_LOST]; }

private:
    tp_reader_role role_;
};

} // namespace tickpath
