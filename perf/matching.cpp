// The yardstick of perf/bench_matching.py: the same orders through a matching engine as most are written in C++, a std::map of prices on
// each side, the orders of a price linked in the order of arrival, orders found by id in an array. Same events, same order of them.

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

namespace {

enum Kind : uint8_t { NEW, CANCEL, MODIFY };
enum Told : uint8_t { TRADED = 1, ACCEPTED, CANCELED, MODIFIED, CANCEL_REJECTED, MODIFY_REJECTED };

struct Order {
    uint8_t kind, side, immediate, pad;
    uint32_t qty, id, pad_2;
    int64_t px;
};
static_assert(sizeof(Order) == 24);

struct Event {
    int64_t ref, taker, px;
    uint32_t qty, left, owner, user_ref;
    uint8_t kind, pad[7];
};
static_assert(sizeof(Event) == 48);

struct Resting;

struct Level {
    Resting *head = nullptr, *tail = nullptr;
};

struct Resting {
    int64_t ref, px;
    uint32_t qty, id;
    uint8_t side;
    Level *level;
    Resting *prev, *next;
};

// The best price comes first on both sides.
using Bids = std::map<int64_t, Level, std::greater<int64_t>>;
using Asks = std::map<int64_t, Level>;

class Engine {
  public:
    Engine(size_t ids, int64_t first_ref, Event *events) : handles(ids), ref(first_ref), out(events), begin(events) {}

    int64_t run(const Order *orders, size_t count) {
        for (size_t number = 0; number < count; number++) handle(orders[number]);
        return out - begin;
    }

  private:
    Bids bids;
    Asks asks;
    std::vector<Resting *> handles;
    std::vector<Resting *> unused;
    int64_t ref;
    Event *out, *begin;

    void tell(Told kind, uint32_t id, uint32_t qty, int64_t px) { *out++ = Event{id, 0, px, qty, 0, 0, id, kind, {}}; }

    void handle(const Order &order) {
        if (order.kind == NEW) {
            tell(ACCEPTED, order.id, order.qty, order.px);
        } else {
            Resting *resting = handles[order.id];
            if (resting == nullptr) return tell(order.kind == CANCEL ? CANCEL_REJECTED : MODIFY_REJECTED, order.id, 0, 0);
            uint32_t there = resting->qty;
            remove(resting);
            if (order.kind == CANCEL) return tell(CANCELED, order.id, there, order.px);
            tell(MODIFIED, order.id, order.qty, order.px);
        }
        uint32_t left = order.side == 'B' ? trade(asks, order) : trade(bids, order);
        if (left == 0) return;
        if (order.immediate) return tell(CANCELED, order.id, left, order.px);
        rest(order, left);
    }

    template <class Side> uint32_t trade(Side &side, const Order &order) {
        uint32_t left = order.qty;
        while (left && !side.empty()) {
            auto best = side.begin();
            if (order.side == 'B' ? best->first > order.px : best->first < order.px) break;
            while (left) {
                Resting *maker = best->second.head;
                uint32_t qty = left < maker->qty ? left : maker->qty;
                left -= qty;
                maker->qty -= qty;
                *out++ = Event{maker->ref, order.id, maker->px, qty, maker->qty, 0, maker->id, TRADED, {}};
                if (maker->qty) break;
                Resting *after = maker->next;
                forget(maker);
                best->second.head = after;
                if (after == nullptr) {
                    side.erase(best);
                    break;
                }
                after->prev = nullptr;
            }
        }
        return left;
    }

    void rest(const Order &order, uint32_t qty) {
        Resting *made;
        if (unused.empty()) {
            made = new Resting;
        } else {
            made = unused.back();
            unused.pop_back();
        }
        Level *level = order.side == 'B' ? &bids[order.px] : &asks[order.px];
        *made = Resting{ref++, order.px, qty, order.id, order.side, level, level->tail, nullptr};
        (level->tail ? level->tail->next : level->head) = made;
        level->tail = made;
        handles[order.id] = made;
    }

    void remove(Resting *gone) {
        Level *level = gone->level;
        (gone->prev ? gone->prev->next : level->head) = gone->next;
        (gone->next ? gone->next->prev : level->tail) = gone->prev;
        if (level->head == nullptr) {
            if (gone->side == 'B')
                bids.erase(gone->px);
            else
                asks.erase(gone->px);
        }
        forget(gone);
    }

    void forget(Resting *gone) {
        handles[gone->id] = nullptr;
        unused.push_back(gone);
    }
};

}  // namespace

// All orders, on an empty book. Returns how many events there are. What is still resting is left to the process.
extern "C" int64_t tp_match(const Order *orders, size_t count, size_t ids, int64_t first_ref, Event *events) {
    return Engine(ids, first_ref, events).run(orders, count);
}
