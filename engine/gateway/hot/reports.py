"""Publishing on the reports ring: draft a report, fill in what it says, commit it. Callers have made sure that there is room."""

from numba import njit

from engine.layout import MSG_REJECTED, REJECTED_BY_RISK, REJECTED_BY_VENUE
from engine.messages.hot.stamp import age_at, now_tsc, wall_ns
from shm.hot import claim, commit


@njit(cache=True, _nrt=False)
def draft(reports, clock, origin_tsc, ts_ns, instrument, side, order_id):
    """The place of a new report that says nothing yet of its kind, price and quantity. Commit it before drafting another."""
    index = claim(reports)
    report = reports.slots[index]
    report.origin_tsc = origin_tsc
    report.ts_ns = ts_ns
    report.flags = 0
    report.instrument = instrument
    report.age_tsc = age_at(origin_tsc, now_tsc(clock))
    report.order_id = order_id
    report.reason = 0
    report.side = side
    report.liquidity = 0
    report.ref_id = 0
    return index


@njit(cache=True, _nrt=False, forceinline=True)
def publish(reports, index, entry):
    """Commit a report on an order, unless no strategy knows the order: then the next report is drafted over it."""
    if entry.order_id != 0:
        commit(reports, index)


@njit(cache=True, _nrt=False)
def refuse(reports, stats, clock, origin_tsc, order, reason, open_qty):
    """The gate's no. open_qty is what stays open of the order named: not 0 where only a cancel of it was refused."""
    stats[0].rejected_by_risk += 1
    index = draft(reports, clock, origin_tsc, wall_ns(clock, now_tsc(clock)), order.instrument, order.side, order.order_id)
    report = reports.slots[index]
    report.kind = MSG_REJECTED
    report.flags = REJECTED_BY_RISK
    report.px = order.px
    report.qty = open_qty
    report.reason = reason
    commit(reports, index)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def refuse_by_venue(reports, stats, clock, origin_tsc, ts_ns, entry, reason, open_qty):
    """The venue's no, said or implied. open_qty is what stays open of the order: not 0 where only a cancel of it came to nothing."""
    stats[0].rejected_by_venue += 1
    index = draft(reports, clock, origin_tsc, ts_ns, entry.instrument, entry.side, entry.order_id)
    report = reports.slots[index]
    report.kind = MSG_REJECTED
    report.flags = REJECTED_BY_VENUE
    report.px = entry.px
    report.qty = open_qty
    report.reason = reason
    publish(reports, index, entry)
