"""One turn of the simulated exchange.

    clients' bytes ──▶ session ──▶ orders ──┐                     ┌──▶ MoldUDP64 packets ──▶ market data
                                            ├──▶ matching, book ──┼──▶ archive ──▶ rewind, snapshots
    generated flow, or a file's history ────┘                     └──▶ accounts' logs ──▶ reports

Flow runs while the instance trades. With WINDOW set it waits for the feed handler to keep up, so that a replay flat out does not overrun
the socket. When the instance has drained and all is sent, all sessions are ended. While a snapshot is written nothing changes: the
clients and the flow wait.
"""

from numba import njit

from engine.exchange.hot.archive import archive_packets
from engine.exchange.hot.connection import NOT_A_PACKET, NOT_WHOLE, leave, packet_bytes, receive
from engine.exchange.hot.delays import draw_ns, forget_delays, has_arrived, hold_until, receive_ahead
from engine.exchange.hot.faults import BLACKHOLE, choose_rejection, strikes
from engine.exchange.hot.flow import generate_next
from engine.exchange.hot.market import end_session, flush, keep_market_alive, market_has_room, market_is_silent, packets_waiting, seal
from engine.exchange.hot.paper import publish_nothing
from engine.exchange.hot.replay import ENDED, history_now, replay_next
from engine.exchange.hot.rewind import serve_rewinds
from engine.exchange.hot.schedule import is_crossing, keep_schedule
from engine.exchange.hot.session import PACKETS_PER_STEP, all_told, cancel_open, clear_up, connection_of, speak_to_all, take_in, take_packet
from engine.exchange.hot.state import (
    CLIENT_FD,
    CLOSED,
    CONNECTED,
    DEAF,
    DELAYING,
    FLOW_KIND,
    FLOW_OVER,
    FLOW_PAPER,
    FLOW_REPLAY,
    GOODBYES,
    HAS_ENDED,
    HEARD_NS,
    IN_BEGIN,
    LEAVING,
    LISTEN_FD,
    MIDNIGHT_NS,
    NOBODY,
    NOW_NS,
    OWNER,
    PUBLISHED,
    RECEIVED,
    ROW,
    STARTED_NS,
    STATE,
    STRIKING,
    THROTTLED,
    TO_CANCEL,
    TURNS,
    UP,
    WINDOW,
)
from engine.exchange.hot.viewers import is_paused, serve_viewers
from engine.layout import CONTROL, PHASE_DRAINING, PHASE_STARTING, PHASE_TRADING
from engine.messages.hot.stamp import now_tsc, wall_ns
from shm.atomics import load_acquire, store_release

FLOW_PER_STEP = 32
# Turns from one look at the listening socket to the next while somebody is connected: a look is a system call.
TURNS_PER_LOOK = 64
END_PACKETS = 3

# Words of Exchange.control.
PHASE = CONTROL.fields["phase"][1] // 8
DRAINED = CONTROL.fields["drained"][1] // 8
FEED_SEQUENCE = CONTROL.fields["feed_sequence"][1] // 8
FLOW_DONE = CONTROL.fields["flow_done"][1] // 8
CONTROL_PUBLISHED = CONTROL.fields["published"][1] // 8


@njit(cache=True, _nrt=False)
def step(exchange, clock):
    """Do a bounded amount of work. Returns the number of things done, or why a replay cannot go on (below 0)."""
    venue = exchange.venue
    now_ns = wall_ns(clock, now_tsc(clock))
    phase = load_acquire(exchange.control, PHASE)
    paused = is_paused(exchange.glimpse)
    done = 0
    flown = 0
    if not paused:
        if phase == PHASE_TRADING or is_crossing(exchange.schedule):
            # Before the clients: what comes in this turn comes after what was due by now.
            done += keep_schedule(exchange.schedule, venue, exchange.flow.words, now_ns - exchange.words[MIDNIGHT_NS])
        # A cross of which there is more is of the books as it found them.
        paused = is_crossing(exchange.schedule)
    if not paused:
        done += serve(exchange, now_ns)
    if phase == PHASE_TRADING or exchange.words[FLOW_KIND] == FLOW_PAPER:
        if not paused:
            flown = run_flow(exchange, now_ns)
    elif phase != PHASE_STARTING:
        end_flow(exchange)
    done += speak_to_all(venue, exchange.links, exchange.conduct, now_ns)
    if exchange.words[FLOW_KIND] == FLOW_PAPER:
        publish_nothing(venue.market)
    else:
        seal(venue.market)
        archive_packets(venue.market, exchange.archive)
        done += flush(venue.market, venue.stats, now_ns)
        store_release(exchange.control, CONTROL_PUBLISHED, venue.market.words[PUBLISHED])
    if phase == PHASE_DRAINING and load_acquire(exchange.control, DRAINED) != 0:
        done += say_end(exchange, now_ns)
    if exchange.words[GOODBYES] == 0 and exchange.words[FLOW_KIND] != FLOW_PAPER:
        keep_market_alive(venue.market, now_ns)
    done += serve_rewinds(exchange.rewind, exchange.archive, venue.stats)
    done += serve_viewers(exchange.glimpse, venue, exchange.archive, clock, now_ns)
    return flown if flown < 0 else done + flown


@njit(cache=True, inline="always", _nrt=False)
def tell_time(exchange, now_ns):
    """Set the venue's clock for what a client is about to do: our own time, or where history stands."""
    venue = exchange.venue
    if exchange.words[FLOW_KIND] == FLOW_REPLAY:
        history_now(exchange.replay, venue, now_ns)
    elif exchange.words[FLOW_KIND] != FLOW_PAPER:
        venue.words[NOW_NS] = max(venue.words[NOW_NS], now_ns - exchange.words[MIDNIGHT_NS])


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def admit(links, conduct, stats, words, now_ns):
    """Let one more client in, if it is time to look for one. Returns whether one came."""
    words[TURNS] += 1
    if words[TURNS] == 1:
        conduct.words[STARTED_NS] = now_ns
    if words[TURNS] % TURNS_PER_LOOK != 0:
        for row in range(links.words.shape[0]):
            if links.words[row, STATE] != NOBODY:
                return 0
    row = take_in(links, stats, words[LISTEN_FD], now_ns)
    if row < 0:
        return 0
    if conduct.words[DELAYING] != 0:
        forget_delays(conduct.order_lines[row])
    if strikes(conduct, BLACKHOLE, stats, now_ns):
        links.words[row, DEAF] = 1
    return 1


@njit(cache=True, inline="always", _nrt=False)
def serve(exchange, now_ns):
    """The clients' side of a turn: let them in, hear them, do what they ask, and clear up after them. Returns the number of things done."""
    venue, links = exchange.venue, exchange.links
    done = admit(links, exchange.conduct, venue.stats, exchange.words, now_ns)
    rows = links.words.shape[0]
    for place in range(rows):
        # Whoever is heard first has an advantage: each in its turn.
        row = (place + exchange.words[TURNS]) % rows
        if links.words[row, STATE] != NOBODY:
            done += hear(exchange, connection_of(links, row), now_ns)
    for account in range(venue.clients.words.shape[0]):
        if venue.clients.words[account, TO_CANCEL] != 0:
            tell_time(exchange, now_ns)
            done += 1 + cancel_open(venue, account)
    return done


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def may_be_heard(venue, words):
    """Whether a connection's next packet may be taken: there is one, the market has room, and what its client asked before is done."""
    if words[STATE] == UP:
        return venue.clients.words[words[OWNER] - 1, TO_CANCEL] == 0 and market_has_room(venue.market)
    return words[STATE] == CONNECTED and market_has_room(venue.market)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def listen_ahead(conduct, line, link, now_ns):
    """Read what has come, to be done when its latency is over. Returns whether there was anything."""
    if not receive_ahead(link.words, link.inbound, link.words[CLIENT_FD]):
        return 0
    link.words[HEARD_NS] = now_ns
    hold_until(line, link.words[RECEIVED], now_ns + draw_ns(conduct.orders_ns, conduct.random))
    return 1


@njit(cache=True, inline="always", _nrt=False)
def hear(exchange, link, now_ns):
    """Do what one client asks, a bounded number of packets of it. Returns the number of things done."""
    venue = exchange.venue
    words = link.words
    done = 0
    if words[DEAF] != 0:
        return 0
    delayed = exchange.conduct.words[DELAYING] != 0
    line = exchange.conduct.order_lines[words[ROW] if delayed else 0]
    if delayed:
        done += listen_ahead(exchange.conduct, line, link, now_ns)
    if (not delayed or words[HAS_ENDED] != 0) and packet_bytes(words, link.inbound) == NOT_WHOLE:
        done += 1 if receive(link, venue.stats, now_ns) > 0 else 0
    for _ in range(PACKETS_PER_STEP):
        if not may_be_heard(venue, words):
            break
        size = packet_bytes(words, link.inbound)
        if size == NOT_WHOLE or (delayed and not has_arrived(line, words, size, now_ns)):
            break
        tell_time(exchange, now_ns)
        at = words[IN_BEGIN]
        words[IN_BEGIN] = at + size
        done += 1
        if exchange.conduct.words[STRIKING] != 0 and words[STATE] == UP:
            choose_rejection(exchange.conduct, venue.clients.words[words[OWNER] - 1], venue.stats, link.inbound, at, size, now_ns)
        if size == NOT_A_PACKET or not take_packet(venue, exchange.links, link, at, size):
            venue.stats[0].malformed += 1
            leave(link)
        if words[IN_BEGIN] == at:
            break
    if words[STATE] == LEAVING:
        clear_up(venue.clients, words)
    return done


@njit(cache=True, inline="always", _nrt=False)
def may_publish(exchange):
    """Whether flow may go on: the queue of packets has room, and the feed handler is not too far behind."""
    venue = exchange.venue
    if not market_has_room(venue.market):
        return False
    words = exchange.words
    if words[WINDOW] == 0:
        return True
    # The feed handler's word is the next message that it expects; it is 0 before there is a feed handler.
    behind = venue.market.words[PUBLISHED] - max(load_acquire(exchange.control, FEED_SEQUENCE) - 1, 0)
    if behind < words[WINDOW]:
        words[THROTTLED] = 0
        return True
    if words[THROTTLED] == 0:
        words[THROTTLED] = 1
        venue.stats[0].throttled += 1
    return False


@njit(cache=True, inline="always", _nrt=False)
def run_flow(exchange, now_ns):
    """Some of the flow that is due. Returns how much was done, or why a replay cannot go on."""
    words = exchange.words
    for done in range(FLOW_PER_STEP):
        if words[FLOW_OVER] != 0 or not may_publish(exchange):
            return done
        if words[FLOW_KIND] == FLOW_REPLAY or words[FLOW_KIND] == FLOW_PAPER:
            outcome = replay_next(exchange.replay, exchange.paper, exchange.venue, now_ns)
            if outcome == ENDED:
                end_flow(exchange)
            elif outcome < 0:
                return outcome
            if outcome <= 0:
                return done
        elif not generate_next(exchange.flow, exchange.venue, now_ns - words[MIDNIGHT_NS]):
            return done
    return FLOW_PER_STEP


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def end_flow(exchange):
    """No more background flow, and the supervisor may know."""
    if exchange.words[FLOW_OVER] == 0:
        exchange.words[FLOW_OVER] = 1
        store_release(exchange.control, FLOW_DONE, 1)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def say_end(exchange, now_ns):
    """End all sessions, once everything has been sent: END_PACKETS to the market, and then one in place of each heartbeat, as whoever
    missed the last message learns of it from them; the client is told by speak."""
    venue = exchange.venue
    if exchange.words[GOODBYES] >= END_PACKETS and not market_is_silent(venue.market, now_ns):
        return 0
    if packets_waiting(venue.market) != 0 or not (venue.words[CLOSED] != 0 or all_told(venue.clients, exchange.links)):
        return 0
    venue.words[CLOSED] = 1
    if exchange.words[FLOW_KIND] != FLOW_PAPER and not end_session(venue.market, now_ns):
        return 0
    exchange.words[GOODBYES] += 1
    return 1
