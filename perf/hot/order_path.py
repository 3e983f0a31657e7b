"""The kernels that perf/bench_order_path.py times: orders put on their ring and taken, the gate with a send behind every order, and
packets followed from the feed handler's socket to the gateway's."""

import numpy as np
from numba import njit

from engine.feed.hot.step import step as step_feed
from engine.gateway.hot.step import step as step_gateway
from engine.gateway.hot.take import take_orders
from engine.gateway.ouch.hot.encode import ENTER_BYTES, OUTBOX_AT, encode_enter
from engine.risk.hot.gate import check
from engine.risk.hot.own import link, unlink
from engine.risk.hot.reasons import PASSED
from engine.risk.hot.stake import position_changed
from engine.wire.hot.syscalls import send_bytes
from shm.atomics import read_tsc
from shm.hot import claim, commit, record

NOT_SENT = -101
LOST = -100
TURNS_MAX = 1_000_000


@njit(cache=True, _nrt=False)
def put(into, order, order_id, tsc):
    index = claim(into)
    slot = into.slots[index]
    slot.origin_tsc = tsc
    slot.age_tsc = 0
    slot.kind = order.kind
    slot.instrument = order.instrument
    slot.px = order.px
    slot.qty = order.qty
    slot.order_id = order_id
    slot.target_id = 0
    slot.side = order.side
    slot.tif = order.tif
    slot.strategy = 0
    commit(into, index)


@njit(cache=True, _nrt=False)
def take_in_batches(gateway, clock, into, orders, first_id, batch):
    """Put the orders on the ring, `batch` at a time, and let the gateway take them. Ticks spent taking, sends included."""
    taking = 0
    for first in range(0, orders.shape[0], batch):
        for index in range(first, first + batch):
            put(into, orders[index], first_id + index, read_tsc())
        begun = read_tsc()
        take_orders(gateway, clock)
        taking += read_tsc() - begun
    return taking


@njit(cache=True, _nrt=False)
def judge_between_sends(risk, clock, orders, wire, fd, batch, histogram):
    """Risk and encoding alone, with the send of `batch` orders behind each `batch`. The ticks of each batch go to the histogram."""
    passed = 0
    for first in range(0, orders.shape[0], batch):
        begun = read_tsc()
        for index in range(first, first + batch):
            order = orders[index]
            if check(risk, clock, begun, order, PASSED, np.int64(0), np.int64(0)) == PASSED:
                passed += 1
                place = index & (risk.own.shape[0] - 1)
                unlink(risk, place)
                link(risk, place, order.instrument, order.side, order.px)
                position_changed(risk, order.instrument)
                at = OUTBOX_AT + (index - first) * ENTER_BYTES
                symbol = risk.known[order.instrument].symbol
                encode_enter(wire, at, order.order_id, order.side, order.qty, symbol, order.px, order.tif, np.int64(order.strategy))
        record(histogram, read_tsc() - begun)
        send_bytes(fd, wire, OUTBOX_AT, batch * ENTER_BYTES)
    return passed


@njit(cache=True, _nrt=False)
def follow_packets(feed, gateway, clock, sending, packets, offsets, first, count):
    """Send packets one at a time to the feed handler, and turn it and the gateway until the order that each causes is sent. 0, or what
    went wrong below 0."""
    for packet in range(first, first + count):
        sent = gateway.stats[0].sent
        if send_bytes(sending, packets, offsets[packet], offsets[packet + 1] - offsets[packet]) < 0:
            return NOT_SENT
        turns = 0
        while gateway.stats[0].sent == sent:
            done = step_feed(feed, clock)
            if done >= 0:
                done = step_gateway(gateway, clock)
            turns += 1
            if done < 0:
                return done
            if turns == TURNS_MAX:
                return LOST
    return 0
