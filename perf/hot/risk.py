"""The kernels that perf/bench_risk.py times: the gate over prepared orders, with what sending one adds to it, and encoding."""

import numpy as np
from numba import njit

from engine.gateway.ouch.hot.encode import OUTBOX_AT, encode_enter
from engine.messages.hot.stamp import now_tsc
from engine.risk.hot.gate import check
from engine.risk.hot.own import link, unlink
from engine.risk.hot.reasons import PASSED
from engine.risk.hot.stake import position_changed
from shm.atomics import read_tsc
from shm.hot import record


@njit(cache=True, _nrt=False)
def judge(risk, clock, orders, rounds):
    """Judge all orders so many times. Returns how many passed."""
    passed = 0
    for _ in range(rounds):
        for index in range(orders.shape[0]):
            if check(risk, clock, now_tsc(clock), orders[index], PASSED, np.int64(0), np.int64(0)) == PASSED:
                passed += 1
    return passed


@njit(cache=True, _nrt=False)
def judge_and_open(risk, clock, orders, rounds):
    """The same, and what the gate keeps of an order that is sent: its place among our open ones, and the account's totals."""
    passed = 0
    for _ in range(rounds):
        for index in range(orders.shape[0]):
            order = orders[index]
            if check(risk, clock, now_tsc(clock), order, PASSED, np.int64(0), np.int64(0)) == PASSED:
                passed += 1
                place = index & (risk.own.shape[0] - 1)
                unlink(risk, place)
                link(risk, place, order.instrument, order.side, order.px)
                position_changed(risk, order.instrument)
    return passed


@njit(cache=True, _nrt=False)
def judge_and_encode(risk, clock, orders, wire, rounds):
    """The gate, what it keeps, and the order's bytes."""
    passed = 0
    for _ in range(rounds):
        for index in range(orders.shape[0]):
            order = orders[index]
            if check(risk, clock, now_tsc(clock), order, PASSED, np.int64(0), np.int64(0)) == PASSED:
                passed += 1
                place = index & (risk.own.shape[0] - 1)
                unlink(risk, place)
                link(risk, place, order.instrument, order.side, order.px)
                position_changed(risk, order.instrument)
                encode_enter(
                    wire,
                    OUTBOX_AT,
                    order.order_id,
                    order.side,
                    order.qty,
                    risk.known[order.instrument].symbol,
                    order.px,
                    order.tif,
                    np.int64(order.strategy),
                )
    return passed


@njit(cache=True, _nrt=False)
def judge_each(risk, clock, orders, rounds, full, empty):
    """Each order by itself, between two readings of the clock, into the histogram `full`; two readings alone into `empty`."""
    for _ in range(rounds):
        for index in range(orders.shape[0]):
            begun = read_tsc()
            record(empty, read_tsc() - begun)
            begun = read_tsc()
            check(risk, clock, now_tsc(clock), orders[index], PASSED, np.int64(0), np.int64(0))
            record(full, read_tsc() - begun)


@njit(cache=True, _nrt=False)
def idle(clock, orders, rounds):
    """The loop without a gate: what judge pays for its own clock and its walk along the orders."""
    total = np.int64(0)
    for _ in range(rounds):
        for index in range(orders.shape[0]):
            total += (now_tsc(clock) & 1) + orders[index].qty
    return total
