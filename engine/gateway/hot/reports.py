"""Publishing on the reports ring. Callers see to it that there is room before they change anything."""

from numba import njit

from engine.layout import MSG_REJECTED, REJECTED_BY_RISK, REJECTED_BY_VENUE
from engine.messages.hot.stamp import age_at, now_tsc, wall_ns
from shm.hot import FULL, claim, commit


@njit(cache=True, _nrt=False)
def publish(reports, tsc, origin_tsc, ts_ns, kind, flags, instrument, side, px, qty, order_id, reason, liquidity, ref_id):
    index = claim(reports)
    if index == FULL:
        return
    report = reports.slots[index]
    report.origin_tsc = origin_tsc
    report.ts_ns = ts_ns
    report.kind = kind
    report.flags = flags
    report.instrument = instrument
    report.age_tsc = age_at(origin_tsc, tsc)
    report.px = px
    report.qty = qty
    report.order_id = order_id
    report.reason = reason
    report.side = side
    report.liquidity = liquidity
    report.ref_id = ref_id
    commit(reports, index)


@njit(cache=True, _nrt=False)
def refuse(reports, stats, clock, origin_tsc, order, reason, open_qty):
    """The gate's no. open_qty is what stays open of the order named: not 0 where only a cancel of it was refused."""
    tsc = now_tsc(clock)
    stats[0].rejected_by_risk += 1
    publish(
        reports, tsc, origin_tsc, wall_ns(clock, tsc), MSG_REJECTED, REJECTED_BY_RISK, order.instrument, order.side, order.px, open_qty,
        order.order_id, reason, 0, 0,
    )  # fmt: skip


@njit(cache=True, _nrt=False)
def refuse_by_venue(reports, stats, clock, origin_tsc, ts_ns, entry, reason):
    """The venue's no, said or implied."""
    stats[0].rejected_by_venue += 1
    publish(
        reports, now_tsc(clock), origin_tsc, ts_ns, MSG_REJECTED, REJECTED_BY_VENUE, entry.instrument, entry.side, entry.px, 0,
        entry.order_id, reason, 0, 0,
    )  # fmt: skip
