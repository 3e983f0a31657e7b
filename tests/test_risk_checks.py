"""Each check that needs more than one order to be seen: alone, at its boundary, and with what must not change it."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from engine.layout import BOOK_STALE, BUY, MSG_CANCEL, MSG_REPLACE, RISK_ACTIVE, RISK_HALTED, RISK_REDUCING, SELL, TIF_IOC
from engine.messages.hot.stamp import NOW
from engine.risk.hot import reasons as hot
from engine.risk.hot.own import relink
from engine.risk.hot.reasons import PASSED
from engine.risk.limits import Limits, to_dict
from engine.risk.rules import Rules, read
from tests.risk_house import CALM, GOOD, KNOWN, MS, PX, SECOND, Boards, Desk


@pytest.fixture(scope="module")
def boards() -> Iterator[Boards]:
    made = Boards(f"test-checks-{uuid.uuid4().hex[:12]}")
    yield made
    made.close()


def limits_with(desk: Desk, **changed: Any) -> Rules:
    return replace(desk.rules, limits=Limits(**to_dict(desk.rules.limits) | changed))


# One order.


def test_the_least_quantity_and_its_step(boards: Boards) -> None:
    desk = Desk(boards, order_qty_min=50, order_qty_step=10)
    assert [desk.judge(qty=qty) for qty in (49, 50, 55, 60)] == [
        hot.REASON_QUANTITY_MIN,
        PASSED,
        hot.REASON_QUANTITY_STEP,
        PASSED,
    ]


def test_whole_round_lots(boards: Boards) -> None:
    desk = Desk(boards, order_qty_step="lot")
    assert [desk.judge(qty=qty) for qty in (99, 100, 150, 300)] == [hot.REASON_QUANTITY_STEP, PASSED, hot.REASON_QUANTITY_STEP, PASSED]
    boards.set(boards.instruments, KNOWN, lot_qty=10)
    assert desk.judge(qty=150) == PASSED
    boards.set(boards.instruments, KNOWN, lot_qty=0)
    assert desk.judge(qty=100) == hot.REASON_QUANTITY_STEP


def test_whole_ticks(boards: Boards) -> None:
    desk = Desk(boards, order_px_step="tick")
    assert [desk.judge(px=px) for px in (PX, PX + 1, PX + 100)] == [PASSED, hot.REASON_PRICE_STEP, PASSED]
    boards.set(boards.instruments, KNOWN, tick_px=0)
    assert desk.judge() == hot.REASON_PRICE_STEP


def test_the_least_notional(boards: Boards) -> None:
    desk = Desk(boards, order_notional_min=5_000.0)
    assert desk.judge(qty=50, px=PX) == PASSED
    assert desk.judge(qty=50, px=PX - 1) == hot.REASON_NOTIONAL_MIN


@pytest.mark.statement(8)
def test_a_restricted_symbol_is_blocked_from_the_moment_it_is_restricted(boards: Boards) -> None:
    desk = Desk(boards, restricted=("MSFT",))
    assert desk.judge() == PASSED
    desk.put(limits_with(desk, restricted=["MSFT", "AAPL"]))
    assert desk.judge() == hot.REASON_RESTRICTED
    assert desk.judge(instrument=SECOND) == PASSED
    assert desk.judge(kind=MSG_CANCEL, qty=0, counted=100) == PASSED
    desk.put(limits_with(desk, restricted=[]))
    assert desk.judge() == PASSED


@pytest.mark.statement(8)
def test_a_strategy_that_nobody_authorised_is_blocked(boards: Boards) -> None:
    desk = Desk(boards)
    assert desk.judge(strategy=1) == hot.REASON_UNKNOWN_STRATEGY
    desk.put(replace(desk.rules, enabled={0: 1, 1: 1, 2: 0}))
    assert desk.judge(strategy=1) == PASSED
    assert desk.judge(strategy=2) == hot.REASON_STRATEGY_DISABLED  # before this start


# The price over a window.


@pytest.mark.statement(2)
def test_the_collar_holds_over_a_time_window_too(boards: Boards) -> None:
    """The quote creeps 45 basis points at a time: each order is within its collar, all of them are not within the window's."""
    desk = Desk(boards, collar_window_bps=100.0, collar_window_ms=700.0)
    verdicts = []
    for step in range(4):
        middle = PX + step * 4_500
        boards.quote(bid_px=middle - 100, ask_px=middle + 100, origin_tsc=int(desk.clock.words[NOW]))
        verdicts.append(desk.judge(px=middle))
        desk.after(50 * MS)
    assert verdicts == [PASSED, PASSED, PASSED, hot.REASON_COLLAR_WINDOW]
    # 700 ms after the first middle, and no later than a seventh of that more, the first ones count no longer.
    desk.after(500 * MS - 1)
    assert desk.judge(px=PX + 13_500) == hot.REASON_COLLAR_WINDOW
    desk.after(101 * MS)
    assert desk.judge(px=PX + 13_500) == PASSED


def test_a_falling_price_is_held_to_the_highest_middle_of_the_window(boards: Boards) -> None:
    desk = Desk(boards, collar_window_bps=100.0, collar_window_ms=700.0)
    verdicts = []
    for step in range(4):
        middle = PX - step * 4_500
        boards.quote(bid_px=middle - 100, ask_px=middle + 100, origin_tsc=int(desk.clock.words[NOW]))
        verdicts.append(desk.judge(px=middle))
        desk.after(150 * MS)
    assert verdicts == [PASSED, PASSED, PASSED, hot.REASON_COLLAR_WINDOW]
    desk.after(350 * MS)
    assert desk.judge(px=PX - 13_500) == PASSED


def test_the_collar_of_the_window_is_exact_on_both_sides(boards: Boards) -> None:
    desk = Desk(boards, collar_bps=10_000.0, collar_window_bps=100.0, collar_window_ms=60_000.0)
    assert desk.judge() == PASSED  # sees 100.00
    boards.quote(bid_px=PX + 4_900, ask_px=PX + 5_100)  # and 100.50
    assert [desk.judge(px=px) for px in (PX + 10_000, PX + 10_001)] == [PASSED, hot.REASON_COLLAR_WINDOW]
    assert [desk.judge(px=px) for px in (PX - 5_050, PX - 5_051)] == [PASSED, hot.REASON_COLLAR_WINDOW]


def test_a_middle_that_only_the_watch_saw_counts(boards: Boards) -> None:
    desk = Desk(boards, collar_bps=10_000.0, collar_window_bps=100.0, collar_window_ms=60_000.0)
    assert desk.judge() == PASSED
    boards.quote(bid_px=1_019_900, ask_px=1_020_100)
    desk.watch()
    boards.quote()
    assert desk.judge(px=PX) == hot.REASON_COLLAR_WINDOW


def test_a_bad_quote_is_no_middle(boards: Boards) -> None:
    desk = Desk(boards, collar_bps=10_000.0, collar_window_bps=100.0, collar_window_ms=60_000.0)
    assert desk.judge() == PASSED
    boards.quote(bid_px=1_099_900, ask_px=1_100_100, flags=BOOK_STALE)
    desk.watch()
    boards.quote()
    assert desk.judge() == PASSED


# Positions and exposure.


@pytest.mark.statement(6)
def test_every_order_sent_counts_at_once(boards: Boards) -> None:
    """Nobody has accepted any of them, and nobody ever may: they count until they are known to be gone."""
    desk = Desk(boards, **CALM | {"position_max": 10_000, "gross_exposure_max": 300_000.0})
    assert [desk.enter(place, qty=1_000, px=PX) for place in range(4)] == [PASSED, PASSED, PASSED, hot.REASON_GROSS_EXPOSURE]
    desk.leave(1, KNOWN, BUY, 1_000)
    assert [desk.enter(place, qty=1_000, px=PX) for place in (1, 4)] == [PASSED, hot.REASON_GROSS_EXPOSURE]


@pytest.mark.statement(1)
def test_gross_exposure_adds_the_worst_side_of_every_instrument(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"position_max": 10_000, "gross_exposure_max": 300_000.0})
    assert desk.enter(0, qty=1_000) == PASSED
    assert desk.enter(1, instrument=SECOND, side=SELL, qty=1_500) == PASSED
    assert desk.enter(2, qty=501) == hot.REASON_GROSS_EXPOSURE
    assert desk.enter(2, side=SELL, qty=1_000) == PASSED  # as much the other way is no worse side
    assert desk.enter(3, side=SELL, qty=501) == hot.REASON_GROSS_EXPOSURE
    assert desk.enter(3, qty=500) == PASSED


@pytest.mark.statement(1)
def test_net_exposure_is_long_or_short_of_all(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"position_max": 10_000, "net_exposure_max": 200_000.0})
    assert desk.enter(0, qty=1_500) == PASSED
    assert desk.enter(1, instrument=SECOND, qty=501) == hot.REASON_NET_EXPOSURE
    desk.fill(SELL, 1_000, PX, SECOND)
    assert desk.enter(1, instrument=SECOND, qty=1_500) == PASSED
    assert desk.enter(2, instrument=SECOND, qty=1) == hot.REASON_NET_EXPOSURE


@pytest.mark.statement(1)
def test_gross_position_counts_shares_of_all(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"position_max": 10_000, "gross_position_max": 1_000})
    assert desk.enter(0, qty=600) == PASSED
    assert desk.enter(1, instrument=SECOND, side=SELL, qty=401) == hot.REASON_GROSS_POSITION
    assert desk.enter(1, instrument=SECOND, side=SELL, qty=400) == PASSED


@pytest.mark.statement(1)
def test_credit_is_taken_by_margin_and_by_losses(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"position_max": 10_000, "credit_max": 50_000.0, "margin_pct": 25})
    assert desk.judge(qty=2_000) == PASSED
    assert desk.judge(qty=2_001) == hot.REASON_CREDIT
    desk.fill(BUY, 100, PX + 100_000)  # 10.00 too dear: 1,000.00 are lost, and 100 shares are held
    assert desk.judge(qty=1_860) == PASSED
    assert desk.judge(qty=1_861) == hot.REASON_CREDIT
    desk.fill(SELL, 100, PX + 500_000)  # a gain lends nothing
    assert desk.judge(qty=2_000) == PASSED
    assert desk.judge(qty=2_001) == hot.REASON_CREDIT


def test_an_order_that_leads_back_passes_however_much_is_at_stake(boards: Boards) -> None:
    everything = {"gross_exposure_max": 100.0, "net_exposure_max": 100.0, "credit_max": 100.0, "gross_position_max": 1}
    desk = Desk(boards, **CALM | everything)
    desk.fill(BUY, 900, PX)
    assert desk.judge(side=SELL, qty=900) == PASSED
    assert desk.judge(side=BUY, qty=1) == hot.REASON_GROSS_POSITION
    assert desk.judge(kind=MSG_REPLACE, qty=100, counted=100) == PASSED


def test_exposure_follows_the_mark(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"collar_bps": 10_000.0, "gross_exposure_max": 100_000.0})
    desk.fill(BUY, 500, PX)
    assert desk.judge(qty=500) == PASSED
    boards.quote(bid_px=1_009_900, ask_px=1_010_100)
    assert desk.judge(qty=500) == hot.REASON_GROSS_EXPOSURE
    assert desk.judge(qty=490) == PASSED


@pytest.mark.statement(3)
def test_amounts_that_do_not_fit_are_beyond_every_limit(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"position_max": 10**12, "gross_exposure_max": 4e11, "order_qty_max": 10**9, "order_notional_max": 1e12})
    desk.put(replace(desk.rules, venue_qty_max=10**9))
    boards.quote(bid_px=(1 << 40) - 2, ask_px=1 << 40)
    assert desk.judge(qty=3_000, px=1 << 40) == PASSED
    desk.open(KNOWN, BUY, 10**11)
    assert desk.judge(qty=3_000, px=1 << 40) == hot.REASON_GROSS_EXPOSURE


# Losses.


def bought_too_dear(desk: Desk, loss: float) -> None:
    """Hold 100 shares that are marked at 100.00 and cost more."""
    desk.judge()
    desk.fill(BUY, 100, PX + int(loss * 100))


@pytest.mark.statement(1)
@pytest.mark.parametrize(("limit", "reason"), [("daily_loss_max", hot.REASON_DAILY_LOSS), ("drawdown_max", hot.REASON_DRAWDOWN)])
def test_a_loss_leaves_only_what_reduces(boards: Boards, limit: str, reason: int) -> None:
    desk = Desk(boards, **CALM | {limit: 1_000.0})
    bought_too_dear(desk, 1_000.0)
    assert desk.judge() == PASSED
    desk = Desk(boards, **CALM | {limit: 1_000.0})
    bought_too_dear(desk, 1_000.01)
    assert desk.judge() == reason
    assert desk.judge(kind=MSG_REPLACE, qty=50, counted=50) == reason
    assert desk.judge(side=SELL, qty=100) == PASSED
    assert desk.judge(side=SELL, qty=101) == reason
    assert desk.judge(kind=MSG_CANCEL, qty=0, counted=100) == PASSED
    assert desk.facts.trips == 1


def test_a_drawdown_is_from_the_peak_and_a_daily_loss_is_not(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"daily_loss_max": 1_000.0, "drawdown_max": 1_500.0, "collar_bps": 10_000.0})
    desk.judge()
    desk.fill(BUY, 100, PX)
    boards.quote(bid_px=1_199_900, ask_px=1_200_100)  # 2,000.00 up
    desk.watch()
    boards.quote(bid_px=1_049_900, ask_px=1_050_100)  # 500.00 up: 1,500.00 below the peak
    assert desk.judge(px=1_050_000) == PASSED
    boards.quote(bid_px=1_049_800, ask_px=1_050_000)
    assert desk.judge(px=1_050_000) == hot.REASON_DRAWDOWN


def test_the_watch_finds_a_loss_without_any_order(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"daily_loss_max": 1_000.0})
    desk.judge()
    desk.judge(instrument=SECOND)
    desk.fill(BUY, 500, PX, SECOND)
    boards.quote(SECOND, bid_px=979_900, ask_px=980_000)
    desk.watch(0)
    assert desk.facts.trips == 0
    desk.watch(1)
    assert desk.facts.trips == 1
    assert desk.judge() == hot.REASON_DAILY_LOSS


@pytest.mark.parametrize(
    ("limits", "order", "reason"),
    [
        ({"self_trade": "refuse"}, {"side": SELL, "px": 980_000}, hot.REASON_SELF_TRADE),
        ({"collar_window_bps": 10.0}, {"px": 979_950}, hot.REASON_COLLAR_WINDOW),
    ],
)
def test_the_quote_of_an_order_that_is_refused_shows_a_loss_too(
    boards: Boards, limits: dict[str, Any], order: dict[str, int], reason: int
) -> None:
    desk = Desk(boards, **CALM | {"daily_loss_max": 1_000.0} | limits)
    desk.judge()
    assert desk.enter(1, px=PX - 1_000, qty=100) == PASSED
    desk.fill(BUY, 500, PX)
    boards.quote(bid_px=979_900, ask_px=980_000)
    assert desk.judge(**order) == reason
    assert (desk.facts.trips, desk.facts.pnl) == (1, 500 * (979_950 - PX))


def test_a_trip_holds_until_a_person_clears_it_and_comes_back_while_the_loss_stands(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"daily_loss_max": 1_000.0})
    bought_too_dear(desk, 2_000.0)
    assert desk.judge() == hot.REASON_DAILY_LOSS
    boards.quote(bid_px=1_099_900, ask_px=1_100_100)  # won back
    assert desk.judge(px=1_100_000) == hot.REASON_DAILY_LOSS
    boards.quote()
    desk.put(replace(desk.rules, trip_cleared=1))
    assert desk.judge() == hot.REASON_DAILY_LOSS  # as lost as before
    assert desk.facts.trips == 2
    desk.put(replace(limits_with(desk, daily_loss_max=3_000.0), trip_cleared=2))
    assert desk.judge() == PASSED


def test_a_cleared_drawdown_is_measured_from_where_it_was_cleared(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"drawdown_max": 1_000.0})
    bought_too_dear(desk, 1_500.0)
    assert desk.judge() == hot.REASON_DRAWDOWN
    desk.put(replace(desk.rules, trip_cleared=1))
    assert desk.judge() == PASSED


def lose(desk: Desk, times: int, px: int = PX - 100) -> None:
    for _ in range(times):
        desk.fill(BUY, 10, PX)
        desk.fill(SELL, 10, px)


def test_round_trips_lost_in_a_row(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"losses_in_a_row_max": 3})
    desk.judge()
    lose(desk, 3)
    assert (desk.judge(), desk.facts.losses) == (PASSED, 3)
    desk.fill(SELL, 10, PX)
    desk.fill(BUY, 10, PX)  # neither won nor lost
    assert desk.facts.losses == 3
    lose(desk, 1, PX + 100)  # won
    assert desk.facts.losses == 0
    lose(desk, 4)
    assert desk.judge() == hot.REASON_LOSSES_IN_A_ROW
    desk.put(replace(desk.rules, trip_cleared=1))
    assert (desk.judge(), desk.facts.losses) == (PASSED, 0)
    lose(desk, 3)
    desk.put(limits_with(desk, daily_loss_max=1e9))  # another change of the rules clears nothing
    assert (desk.judge(), desk.facts.losses) == (PASSED, 3)


def test_a_round_trip_ends_where_the_position_goes_through_zero(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"losses_in_a_row_max": 100})
    desk.judge()
    desk.fill(BUY, 10, PX)
    desk.fill(BUY, 10, PX - 200)
    desk.fill(SELL, 5, PX - 150)
    assert desk.facts.losses == 0
    desk.fill(SELL, 40, PX - 150)  # 15 close the long one at a loss, 25 open a short one
    assert desk.facts.losses == 1
    desk.fill(BUY, 25, PX - 149)  # bought back dearer
    assert desk.facts.losses == 2
    desk.fill(SELL, 25, PX)
    desk.fill(BUY, 25, PX - 1)
    assert desk.facts.losses == 0


def test_what_a_broken_trade_left_at_flat_is_not_the_next_round_trip_s(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"losses_in_a_row_max": 100})
    desk.judge()
    boards.set(boards.positions, KNOWN, cash=-5_000)  # flat, and poorer by a trade that was taken back
    lose(desk, 1, PX + 100)
    assert desk.facts.losses == 0
    lose(desk, 1)
    assert desk.facts.losses == 1


def test_until_there_is_a_good_quote_a_fill_is_the_mark(boards: Boards) -> None:
    desk = Desk(boards, **CALM)
    boards.quote(flags=BOOK_STALE)
    assert desk.judge() == hot.REASON_BOOK_NOT_VALID
    desk.fill(BUY, 100, PX + 500)
    assert (desk.facts.gross, desk.facts.pnl) == (100 * (PX + 500), 0)
    desk.fill(BUY, 100, PX)
    assert (desk.facts.gross, desk.facts.pnl) == (200 * (PX + 500), 100 * 500)
    boards.quote()
    desk.watch()
    assert (desk.facts.gross, desk.facts.pnl) == (200 * PX, -100 * 500)


# States.


def test_reducing_and_halted(boards: Boards) -> None:
    desk = Desk(boards, **CALM)
    desk.judge()
    desk.fill(SELL, 300, PX)
    desk.open(KNOWN, BUY, 100)
    desk.put(replace(desk.rules, state=RISK_REDUCING))
    assert [desk.judge(qty=200), desk.judge(qty=201)] == [PASSED, hot.REASON_REDUCING]
    assert desk.judge(side=SELL, qty=1) == hot.REASON_REDUCING
    assert desk.judge(instrument=SECOND, qty=1) == hot.REASON_REDUCING
    assert desk.judge(kind=MSG_REPLACE, qty=300, counted=100) == PASSED
    assert desk.judge(kind=MSG_REPLACE, side=SELL, qty=50, counted=100) == hot.REASON_REDUCING
    desk.put(replace(desk.rules, state=RISK_HALTED))
    assert [desk.judge(qty=1), desk.judge(kind=MSG_REPLACE, qty=1, counted=100)] == [hot.REASON_HALTED_BY_RISK] * 2
    assert desk.judge(kind=MSG_CANCEL, qty=0, counted=100) == PASSED
    desk.put(replace(desk.rules, state=RISK_ACTIVE))
    assert desk.judge(side=SELL) == PASSED


def test_a_state_that_is_none_is_halted(boards: Boards) -> None:
    desk = Desk(boards)
    desk.put(replace(desk.rules, state=77))
    assert desk.judge() == hot.REASON_HALTED_BY_RISK


def test_rules_that_are_torn_or_were_never_written_let_nothing_pass_but_cancels(boards: Boards) -> None:
    desk = Desk(boards)
    assert desk.judge() == PASSED
    version = boards.rules.words()[0]
    version[0] += 1  # whoever wrote died
    assert desk.judge() == hot.REASON_RULES
    assert desk.judge(kind=MSG_CANCEL, qty=0, counted=100) == PASSED
    version[0] += 1
    assert desk.judge() == PASSED
    version[0] = 0
    assert desk.judge() == hot.REASON_RULES


def test_rules_of_zeros_refuse_every_order(boards: Boards) -> None:
    """Nothing is off because a word is 0: with all of a record's limits at 0, and everything else as it should be, no order passes."""
    desk = Desk(boards)
    boards.rules.records[0]["limits"][:] = 0
    boards.rules.words()[0][0] += 2
    assert desk.judge() == hot.REASON_QUANTITY


def test_the_rules_come_back_as_they_were_written(boards: Boards) -> None:
    desk = Desk(boards, restricted=("MSFT", "ZVZZT"), daily_loss_max=12.34)
    made = replace(desk.rules, state=RISK_REDUCING, trip_cleared=7, enabled={0: 3, 5: 0})
    desk.put(made)
    assert read(boards.rules) == made


# Our own orders.


def test_no_order_may_trade_with_one_of_ours(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"self_trade": "refuse"})
    assert desk.enter(0, side=SELL, px=PX + 200) == PASSED
    assert desk.enter(1, side=SELL, px=PX + 100) == PASSED
    assert desk.enter(3, side=SELL, px=PX + 400) == PASSED  # a worse one makes the best no worse
    assert [desk.judge(px=px) for px in (PX, PX + 99, PX + 100, PX + 300)] == [PASSED, PASSED] + [hot.REASON_SELF_TRADE] * 2
    assert desk.judge(kind=MSG_REPLACE, counted=100, px=PX + 100, tif=TIF_IOC) == hot.REASON_SELF_TRADE
    assert desk.judge(px=PX + 300, instrument=SECOND) == PASSED
    assert desk.enter(2, side=SELL, px=PX + 50, instrument=SECOND) == PASSED
    assert [desk.judge(px=PX + 50), desk.judge(px=PX + 50, instrument=SECOND)] == [PASSED, hot.REASON_SELF_TRADE]
    desk.leave(1, KNOWN, SELL, 100)
    assert [desk.judge(px=px) for px in (PX + 199, PX + 200)] == [PASSED, hot.REASON_SELF_TRADE]
    desk.leave(0, KNOWN, SELL, 100)
    assert [desk.judge(px=px) for px in (PX + 300, PX + 400)] == [PASSED, hot.REASON_SELF_TRADE]


def test_no_offer_may_trade_with_a_bid_of_ours(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"self_trade": "refuse"})
    for place, px in enumerate((PX - 200, PX - 100, PX - 300)):
        assert desk.enter(place, px=px) == PASSED
    assert [desk.judge(side=SELL, px=px) for px in (PX - 99, PX - 100)] == [PASSED, hot.REASON_SELF_TRADE]
    desk.leave(1, KNOWN, BUY, 100)
    assert [desk.judge(side=SELL, px=px) for px in (PX - 199, PX - 200)] == [PASSED, hot.REASON_SELF_TRADE]
    desk.leave(0, KNOWN, BUY, 100)
    assert [desk.judge(side=SELL, px=px) for px in (PX - 299, PX - 300)] == [PASSED, hot.REASON_SELF_TRADE]
    desk.leave(2, KNOWN, BUY, 100)
    desk.leave(2, KNOWN, BUY, 0)  # told twice
    assert desk.judge(side=SELL, px=PX - 300) == PASSED


def test_a_price_that_the_venue_made_another_counts(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"self_trade": "refuse"})
    assert desk.enter(0, side=SELL, px=PX + 200) == PASSED
    relink(desk.risk, 0, PX + 100)
    assert desk.judge(px=PX + 100) == hot.REASON_SELF_TRADE


# Over time.


@pytest.mark.statement(4)
def test_a_duplicative_order_in_a_window_is_rejected(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"duplicates_max": 1, "duplicates_window_ms": 100.0})
    assert [desk.judge(), desk.judge()] == [PASSED, hot.REASON_DUPLICATE]
    others: list[dict[str, Any]] = [
        {"qty": 101},
        {"px": PX + 1},
        {"side": SELL},
        {"tif": TIF_IOC},
        {"instrument": SECOND},
        {"kind": MSG_REPLACE, "counted": 1},
    ]
    assert [desk.judge(**other) for other in others] == [PASSED] * len(others)
    assert [desk.judge(**other) for other in others] == [hot.REASON_DUPLICATE] * len(others)
    desk.after(100 * MS - 1)
    assert desk.judge() == hot.REASON_DUPLICATE
    desk.after(1)
    assert [desk.judge(), desk.judge()] == [PASSED, hot.REASON_DUPLICATE]


def test_so_many_duplicates_at_once_and_over_each_window(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"duplicates_max": 4, "duplicates_window_ms": 100.0})
    assert [desk.judge() for _ in range(5)] == [PASSED] * 4 + [hot.REASON_DUPLICATE]
    desk.after(25 * MS - 1)
    assert desk.judge() == hot.REASON_DUPLICATE
    desk.after(1)
    assert [desk.judge(), desk.judge()] == [PASSED, hot.REASON_DUPLICATE]


def test_an_order_refused_for_another_reason_is_no_duplicate(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"duplicates_max": 1, "message_burst": 1, "message_rate_per_s": 10})
    assert desk.judge(px=PX + 1) == PASSED
    assert desk.judge() == hot.REASON_RATE
    desk.after(100 * MS)
    assert desk.judge() == PASSED


def test_too_many_different_orders_to_tell_are_refused(boards: Boards) -> None:
    """The table is sized by the pace of messages; where a command has raised that, the answer is no rather than maybe."""
    desk = Desk(boards, **GOOD | {"duplicates_max": 1, "order_notional_max": 1e9, "collar_bps": 10_000.0})
    desk.put(limits_with(desk, message_burst=1_000_000))
    desk.clock.words[NOW] += 240 * MS
    desk.risk.bucket[0] = 10**6 * 10**9
    verdicts = [desk.judge(px=PX + number) for number in range(3_000)]
    assert set(verdicts) == {PASSED, hot.REASON_DUPLICATES_FULL}
    passed = [number for number, verdict in enumerate(verdicts) if verdict == PASSED]
    assert all(desk.judge(px=PX + number) == hot.REASON_DUPLICATE for number in passed)


@pytest.mark.statement(3)
def test_notional_adds_up_over_a_window_and_the_session(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"notional_window_max": 30_000.0, "notional_window_ms": 310.0, "notional_session_max": 60_000.0})
    assert [desk.judge() for _ in range(4)] == [PASSED] * 3 + [hot.REASON_NOTIONAL_WINDOW]
    assert desk.judge(kind=MSG_REPLACE, qty=100, counted=100) == PASSED  # adds nothing
    assert desk.judge(kind=MSG_REPLACE, qty=101, counted=100) == hot.REASON_NOTIONAL_WINDOW
    desk.after(310 * MS - 1)
    assert desk.judge() == hot.REASON_NOTIONAL_WINDOW
    desk.after(10 * MS + 1)
    assert [desk.judge() for _ in range(4)] == [PASSED] * 3 + [hot.REASON_NOTIONAL_WINDOW]
    desk.after(1_000 * MS)
    assert desk.judge() == hot.REASON_NOTIONAL_SESSION


def test_the_window_lets_go_piece_by_piece(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"notional_window_max": 30_000.0, "notional_window_ms": 310.0})
    for _ in range(3):
        assert desk.judge() == PASSED
        desk.after(100 * MS)
    assert desk.judge() == hot.REASON_NOTIONAL_WINDOW
    desk.after(20 * MS)  # the first is older than the window and a piece, the second is not
    assert [desk.judge(), desk.judge()] == [PASSED, hot.REASON_NOTIONAL_WINDOW]


@pytest.mark.statement(5)
def test_messages_are_capped_and_cancels_always_pass(boards: Boards) -> None:
    """New orders, replaces and cancels all cost a message; only cancels go where there is none left, and new orders wait for it."""
    desk = Desk(boards, message_burst=3, message_rate_per_s=10)
    cancel: dict[str, Any] = {"kind": MSG_CANCEL, "qty": 0, "counted": 100}
    assert [desk.judge(), desk.judge(kind=MSG_REPLACE), desk.judge(**cancel)] == [PASSED] * 3
    assert [desk.judge(), desk.judge(kind=MSG_REPLACE)] == [hot.REASON_RATE] * 2
    assert [desk.judge(**cancel) for _ in range(100)] == [PASSED] * 100
    desk.after(399 * MS)
    assert desk.judge() == hot.REASON_RATE  # the debt of cancels is as deep as the bucket: 3 messages
    desk.after(1 * MS)
    assert [desk.judge(), desk.judge()] == [PASSED, hot.REASON_RATE]


@pytest.mark.statement(5)
def test_the_order_to_trade_ratio(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"order_to_trade_max": 2, "order_to_trade_free": 3})
    cancel: dict[str, Any] = {"kind": MSG_CANCEL, "qty": 0, "counted": 100}
    assert [desk.judge(), desk.judge(**cancel), desk.judge(), desk.judge()] == [PASSED] * 3 + [hot.REASON_ORDER_TO_TRADE]
    assert desk.judge(**cancel) == PASSED
    desk.fill(BUY, 10, PX)
    assert [desk.judge(), desk.judge()] == [PASSED, hot.REASON_ORDER_TO_TRADE]


@pytest.mark.statement(7)
def test_a_strategy_that_fires_too_often_is_out_until_it_is_enabled(boards: Boards) -> None:
    desk = Desk(boards, **CALM | {"strategy_orders_max": 3, "strategy_window_ms": 90.0})
    desk.put(replace(desk.rules, enabled={0: 1, 2: 1}))
    assert [desk.judge() for _ in range(3)] == [PASSED] * 3
    desk.after(30 * MS)
    assert desk.judge() == PASSED
    assert [desk.judge(), desk.judge()] == [hot.REASON_STRATEGY_FIRES, hot.REASON_STRATEGY_DISABLED]
    desk.after(3_600_000 * MS)
    assert desk.judge() == hot.REASON_STRATEGY_DISABLED
    assert desk.judge(strategy=2) == PASSED
    assert desk.judge(kind=MSG_CANCEL, qty=0, counted=100) == PASSED
    desk.put(replace(desk.rules, enabled={0: 2, 2: 1}))
    assert desk.judge() == PASSED
    assert [int(desk.facts.fired[strategy]) for strategy in (0, 1, 2)] == [5, 0, 1]


def test_a_window_that_is_made_shorter_does_not_hold_what_the_longer_one_noted(boards: Boards) -> None:
    long: dict[str, Any] = {"strategy_orders_max": 2, "duplicates_max": 2, "notional_window_max": 20_000.0, "collar_window_bps": 1.0}
    hours = {"strategy_window_ms": 36e5, "duplicates_window_ms": 36e5, "notional_window_ms": 36e5, "collar_window_ms": 36e5}
    seconds = dict.fromkeys(hours, 1_000.0)
    desk = Desk(boards, **CALM | long | hours)
    assert [desk.judge(), desk.judge()] == [PASSED] * 2
    desk.put(limits_with(desk, **seconds))
    # It is not disabled by a measure that was not its own when it fired; what else holds, holds for as long as the new windows say.
    assert desk.judge(px=PX - 1) == hot.REASON_NOTIONAL_WINDOW
    desk.put(limits_with(desk, notional_window_max="off"))
    assert desk.judge() == hot.REASON_DUPLICATE
    assert desk.after(1_000 * MS).judge() == PASSED
    boards.quote(origin_tsc=int(desk.clock.words[NOW]), bid_px=PX + 9_900, ask_px=PX + 10_100)
    assert desk.judge(px=PX + 10_000) == hot.REASON_COLLAR_WINDOW
    desk.put(limits_with(desk, notional_window_max=20_000.0))
    for _ in range(3):
        desk.after(500 * MS).watch()
    assert [desk.judge(qty=99, px=PX + 10_000) for _ in range(2)] == [PASSED] * 2
    assert desk.judge(qty=98, px=PX + 10_000) == hot.REASON_NOTIONAL_WINDOW


def test_a_burst_after_a_quiet_time_and_what_follows_it(boards: Boards) -> None:
    """So many at once, and then the window's pace: within one window twice as many less one, which is what the config's manual says."""
    desk = Desk(boards, **CALM | {"strategy_orders_max": 4, "strategy_window_ms": 100.0})
    passed = sum(desk.judge() == PASSED for _ in range(4))
    for _ in range(3):
        desk.after(25 * MS)
        passed += desk.judge() == PASSED
    assert passed == 2 * 4 - 1
    desk.after(25 * MS - 1)
    assert desk.judge() == hot.REASON_STRATEGY_FIRES


def test_a_limit_changed_while_it_runs_is_judged_by_with_the_next_order(boards: Boards) -> None:
    desk = Desk(boards)
    assert desk.judge(qty=400) == PASSED
    desk.put(limits_with(desk, order_qty_max=399))
    assert desk.judge(qty=400) == hot.REASON_QUANTITY
    assert desk.facts.rules_read == 2
