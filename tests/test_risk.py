"""The risk gate: every reason alone, every boundary, and all of it against the rules restated in plain Python."""

import math
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import config, njit

from engine.layout import (
    BOOK_CLOSED,
    BOOK_CROSSED,
    BOOK_GAPPED,
    BOOK_HALTED,
    BOOK_STALE,
    BOOK_SUSPECT,
    BOOK_VALID,
    BUY,
    MSG_CANCEL,
    MSG_NEW,
    MSG_REPLACE,
    PHASE_DRAINING,
    PHASE_STARTING,
    PHASE_STOPPED,
    SELL,
    TIF_IOC,
    pack_symbol,
)
from engine.messages.hot.stamp import NOW
from engine.risk.hot import reasons as hot
from engine.risk.hot import state
from engine.risk.hot.flow import take_token
from engine.risk.hot.gate import check
from engine.risk.hot.reasons import PASSED
from engine.risk.hot.reference import place_of
from engine.risk.hot.state import BUCKET_MAX, FILLED_NS, LEVEL, LIMITS_AT, PX_MAX, RULES_WORDS
from engine.risk.limits import Limits, can_be_off
from engine.risk.make import verdicts
from engine.risk.sentences import SENTENCES
from engine.risk.words import NUMBERINGS, limit_words
from engine.runtime.config import DEFAULT_PATH, load
from tests.risk_house import BOARD_LINES, GOOD, KNOWN, NOW_NS, OTHER, UNNAMED, Boards, Desk


@pytest.fixture(scope="module")
def boards() -> Iterator[Boards]:
    made = Boards(f"test-risk-{uuid.uuid4().hex[:12]}")
    yield made
    made.close()


@pytest.fixture
def desk(boards: Boards) -> Desk:
    return Desk(boards)


def words_of(limits: Limits, **options: Any) -> np.ndarray:
    """The rules as the kernel has them, with these limits."""
    words = np.zeros(RULES_WORDS, np.int64)
    found = limit_words(limits, **{"px_decimals": 4, "venue_qty_max": 999_999, "symbols": 2} | options)
    words[LIMITS_AT:][: len(found)] = found
    return words


def test_a_good_order_passes_and_is_counted(desk: Desk) -> None:
    assert desk.judge() == PASSED
    assert verdicts(desk.risk) == {"it passed": 1}


# What is changed of a good order, and the reason; where there is a second change, that one is the last that still passes.
FIELD_REASONS: list[tuple[dict[str, Any], int, dict[str, Any] | None]] = [
    ({"kind": 99}, hot.REASON_ILLEGAL, None),
    ({"side": 0}, hot.REASON_SIDE, {"side": SELL}),
    ({"side": ord("T")}, hot.REASON_SIDE, None),
    ({"tif": 2}, hot.REASON_TIME_IN_FORCE, {"tif": TIF_IOC}),
    ({"strategy": 1}, hot.REASON_UNKNOWN_STRATEGY, None),
    ({"strategy": 63}, hot.REASON_UNKNOWN_STRATEGY, None),
    ({"strategy": 64}, hot.REASON_UNKNOWN_STRATEGY, None),
    ({"strategy": 65_535}, hot.REASON_UNKNOWN_STRATEGY, None),
    ({"instrument": OTHER}, hot.REASON_UNKNOWN_INSTRUMENT, None),
    ({"instrument": UNNAMED}, hot.REASON_UNKNOWN_INSTRUMENT, None),
    ({"instrument": BOARD_LINES}, hot.REASON_UNKNOWN_INSTRUMENT, None),
    ({"instrument": 65_535}, hot.REASON_UNKNOWN_INSTRUMENT, None),
    ({"qty": 0}, hot.REASON_QUANTITY, {"qty": 1}),
    ({"qty": -1}, hot.REASON_QUANTITY, None),
    ({"qty": 501}, hot.REASON_QUANTITY, {"qty": 500}),
    ({"qty": -(1 << 63)}, hot.REASON_QUANTITY, None),
    ({"qty": (1 << 63) - 1}, hot.REASON_QUANTITY, None),
    ({"px": 0}, hot.REASON_PRICE, None),
    ({"px": -1}, hot.REASON_PRICE, None),
    ({"px": -(1 << 63)}, hot.REASON_PRICE, None),
    ({"px": PX_MAX + 1}, hot.REASON_PRICE, None),
    ({"px": (1 << 63) - 1}, hot.REASON_PRICE, None),
    ({"px": PX_MAX}, hot.REASON_NOTIONAL, None),
    ({"px": 1_000_001 + 5_000}, hot.REASON_COLLAR, {"px": 1_000_000 + 5_000}),
    ({"px": 999_999 - 5_000}, hot.REASON_COLLAR, {"px": 1_000_000 - 5_000}),
    ({"px": 1}, hot.REASON_COLLAR, None),
]


@pytest.mark.statement(3)
@pytest.mark.parametrize(("refused", "reason", "passed"), FIELD_REASONS, ids=[str(refused) for refused, _, _ in FIELD_REASONS])
def test_each_field_is_checked_alone(desk: Desk, refused: dict[str, Any], reason: int, passed: dict[str, Any] | None) -> None:
    assert desk.judge(**refused) == reason
    assert desk.risk.counts[reason] == 1
    assert desk.risk.counts.sum() == 1
    if passed is not None:
        assert desk.judge(**passed) == PASSED


@pytest.mark.statement(3)
def test_notional(boards: Boards) -> None:
    desk = Desk(boards, order_notional_max=10_000.0)
    assert desk.judge(qty=100, px=1_000_000) == PASSED
    assert desk.judge(qty=100, px=1_000_001) == hot.REASON_NOTIONAL
    assert desk.judge(qty=101, px=1_000_000) == hot.REASON_NOTIONAL


@pytest.mark.statement(3)
def test_notional_does_not_wrap(boards: Boards) -> None:
    """10^9 shares at 2^40: the product wraps 64 bits many times, to values below the limit among others."""
    desk = Desk(boards, order_qty_max=1_000_000_000, order_notional_max=1e11, position_max=10**12)
    desk.put(replace(desk.rules, venue_qty_max=1_000_000_000))
    for px in range(PX_MAX - 5_000, PX_MAX + 1, 7):
        assert desk.judge(qty=1_000_000_000, px=px) == hot.REASON_NOTIONAL


QUOTES: list[tuple[dict[str, Any], int]] = [
    ({"flags": 0}, hot.REASON_BOOK_NOT_VALID),
    ({"flags": BOOK_VALID | BOOK_STALE}, hot.REASON_BOOK_NOT_VALID),
    ({"flags": BOOK_VALID | BOOK_GAPPED}, hot.REASON_BOOK_NOT_VALID),
    ({"flags": BOOK_VALID | BOOK_SUSPECT}, hot.REASON_BOOK_NOT_VALID),
    ({"flags": BOOK_HALTED}, hot.REASON_BOOK_HALTED),
    ({"flags": BOOK_CLOSED | BOOK_STALE}, hot.REASON_BOOK_HALTED),
    ({"flags": BOOK_VALID | BOOK_HALTED}, hot.REASON_BOOK_HALTED),
    ({"flags": BOOK_VALID | BOOK_CROSSED}, hot.REASON_BOOK_NOT_VALID),
    ({"flags": BOOK_STALE}, hot.REASON_BOOK_NOT_VALID),
    ({"bid_sz": 0}, hot.REASON_NO_REFERENCE),
    ({"ask_sz": 0}, hot.REASON_NO_REFERENCE),
    ({"bid_px": 0}, hot.REASON_NO_REFERENCE),
    ({"ask_px": -1}, hot.REASON_NO_REFERENCE),
    ({"ask_px": 0}, hot.REASON_NO_REFERENCE),
    ({"bid_px": PX_MAX + 1, "ask_px": PX_MAX}, hot.REASON_NO_REFERENCE),
    ({"ask_px": PX_MAX + 1}, hot.REASON_NO_REFERENCE),
    ({"ask_px": PX_MAX, "bid_px": PX_MAX}, hot.REASON_COLLAR),
    ({"ask_px": (1 << 63) - 1}, hot.REASON_NO_REFERENCE),
    ({"origin_tsc": NOW_NS - 250_000_001}, hot.REASON_REFERENCE_OLD),
    ({"origin_tsc": 0}, hot.REASON_REFERENCE_OLD),
    ({"origin_tsc": NOW_NS - 250_000_000}, PASSED),
    ({"origin_tsc": NOW_NS + 1_000}, PASSED),  # another core's counter may be a little ahead
]


@pytest.mark.statement(2)
@pytest.mark.parametrize(("quote", "reason"), QUOTES, ids=[str(quote) for quote, _ in QUOTES])
def test_the_reference_must_be_valid_two_sided_and_fresh(desk: Desk, quote: dict[str, Any], reason: int) -> None:
    desk.boards.quote(**quote)
    assert desk.judge() == reason


@pytest.mark.statement(2)
def test_a_quote_never_written_or_always_torn_is_no_reference(desk: Desk) -> None:
    version = desk.boards.quotes.words()[KNOWN]
    version[0] = 0
    assert desk.judge() == hot.REASON_NO_REFERENCE
    version[0] = 7
    assert desk.judge() == hot.REASON_NO_REFERENCE
    version[0] = 8
    assert desk.judge() == PASSED


def test_an_instrument_is_known_once_the_feed_names_it_and_forgotten_when_its_line_changes(desk: Desk) -> None:
    assert desk.judge(instrument=UNNAMED) == hot.REASON_UNKNOWN_INSTRUMENT
    desk.boards.set(desk.boards.instruments, UNNAMED, symbol=pack_symbol("AAPL"))
    assert place_of(desk.risk, UNNAMED) >= 0
    assert desk.risk.known[UNNAMED].symbol == pack_symbol("AAPL")
    assert desk.judge(instrument=UNNAMED) == PASSED
    desk.boards.set(desk.boards.instruments, UNNAMED, symbol=pack_symbol("ZVZZT"))
    assert desk.judge(instrument=UNNAMED) == hot.REASON_UNKNOWN_INSTRUMENT
    desk.boards.instruments.words()[UNNAMED][0] += 1  # being written
    assert desk.judge(instrument=UNNAMED) == hot.REASON_UNKNOWN_INSTRUMENT


@pytest.mark.statement(1)
@pytest.mark.parametrize(
    ("side", "line", "largest"),
    [
        (BUY, {}, 1_000),
        (BUY, {"position": 700}, 300),
        (BUY, {"position": 700, "open_buy": 250, "open_sell": 900}, 50),
        (BUY, {"position": -700}, 1_700),
        (BUY, {"position": -5_000}, 6_000),  # beyond the limit on the other side: leading back is allowed
        (SELL, {}, 1_000),
        (SELL, {"position": -700}, 300),
        (SELL, {"position": -700, "open_sell": 250, "open_buy": 900}, 50),
        (SELL, {"position": 700}, 1_700),
        (SELL, {"position": 5_000}, 6_000),
    ],
)
def test_position_counts_everything_open_on_the_side(boards: Boards, side: int, line: dict[str, int], largest: int) -> None:
    desk = Desk(boards, order_qty_max=10_000, order_notional_max=1e9)
    desk.boards.set(desk.boards.positions, KNOWN, **line)
    assert desk.judge(side=side, qty=largest) == PASSED
    assert desk.judge(side=side, qty=largest + 1) == hot.REASON_POSITION


def test_a_position_beyond_the_limit_admits_nothing_that_leads_further(desk: Desk) -> None:
    desk.boards.set(desk.boards.positions, KNOWN, position=1_001)
    assert desk.judge(side=BUY, qty=1) == hot.REASON_POSITION
    desk.boards.set(desk.boards.positions, KNOWN, position=-1_001)
    assert desk.judge(side=SELL, qty=1) == hot.REASON_POSITION


def test_a_replace_is_held_to_the_increase_it_brings(desk: Desk) -> None:
    desk.boards.set(desk.boards.positions, KNOWN, position=700, open_buy=300)
    assert desk.judge(kind=MSG_REPLACE, qty=300, counted=300) == PASSED
    assert desk.judge(kind=MSG_REPLACE, qty=200, counted=300) == PASSED
    assert desk.judge(kind=MSG_REPLACE, qty=301, counted=300) == hot.REASON_POSITION
    assert desk.judge(kind=MSG_REPLACE, qty=501, counted=501) == hot.REASON_QUANTITY


def test_the_venue_cannot_be_told_a_million(boards: Boards) -> None:
    desk = Desk(boards)
    assert desk.judge(kind=MSG_REPLACE, qty=100, counted=100, executed=999_899) == PASSED
    assert desk.judge(kind=MSG_REPLACE, qty=100, counted=100, executed=999_900) == hot.REASON_VENUE_QUANTITY


@pytest.mark.parametrize("phase", [PHASE_STARTING, PHASE_DRAINING, PHASE_STOPPED, 77])
def test_only_cancels_pass_outside_trading(desk: Desk, phase: int) -> None:
    desk.boards.control.records[0].phase = phase
    assert desk.judge() == hot.REASON_PHASE
    assert desk.judge(kind=MSG_REPLACE) == hot.REASON_PHASE
    assert desk.judge(kind=MSG_CANCEL, qty=0, counted=100) == PASSED


@pytest.mark.parametrize("kill", [1, 2, 1 << 63])
def test_the_kill_word_blocks_all_but_cancels(desk: Desk, kill: int) -> None:
    desk.boards.control.records[0].kill = kill
    assert desk.judge() == hot.REASON_KILLED
    assert desk.judge(kind=MSG_REPLACE) == hot.REASON_KILLED
    assert desk.judge(kind=MSG_CANCEL, qty=0, counted=100) == PASSED
    desk.boards.control.records[0].kill = 0
    assert desk.judge() == PASSED


def test_nothing_passes_without_a_session(desk: Desk) -> None:
    desk.boards.control.records[0].session_up = 0
    assert desk.judge() == hot.REASON_NO_SESSION
    assert desk.judge(kind=MSG_CANCEL, qty=0, counted=100) == hot.REASON_NO_SESSION


TABLE_REASONS = [
    hot.REASON_UNKNOWN_ORDER,
    hot.REASON_REPLACE_PENDING,
    hot.REASON_DUPLICATE_ID,
    hot.REASON_ORDER_TABLE_FULL,
    hot.REASON_EXECUTIONS_FULL,
    hot.REASON_ILLEGAL,
]


@pytest.mark.parametrize("standing", TABLE_REASONS)
def test_what_the_order_table_says_is_heard(desk: Desk, standing: int) -> None:
    assert desk.judge(standing=standing) == standing
    assert desk.judge(kind=MSG_REPLACE, standing=standing) == standing
    assert desk.judge(kind=MSG_CANCEL, standing=standing) == standing


@pytest.mark.parametrize(("qty", "reason"), [(0, PASSED), (99, PASSED), (100, hot.REASON_QUANTITY), (-1, hot.REASON_QUANTITY)])
def test_a_cancel_leaves_less_than_is_open(desk: Desk, qty: int, reason: int) -> None:
    assert desk.judge(kind=MSG_CANCEL, qty=qty, counted=100) == reason


def test_a_cancel_needs_no_side_price_instrument_quote_or_rate(boards: Boards) -> None:
    desk = Desk(boards, message_burst=1, message_rate_per_s=1)
    assert desk.judge() == PASSED
    assert desk.judge() == hot.REASON_RATE
    boards.quote(flags=BOOK_STALE)
    for _ in range(1_000):
        assert desk.judge(kind=MSG_CANCEL, side=0, px=-5, tif=9, instrument=UNNAMED, qty=0, counted=1) == PASSED


@pytest.mark.statement(5)
def test_the_rate_is_a_burst_and_then_a_pace(desk: Desk) -> None:
    assert [desk.judge() for _ in range(11)] == [PASSED] * 10 + [hot.REASON_RATE]
    desk.clock.words[NOW] += 9_999_999
    assert desk.judge() == hot.REASON_RATE
    desk.clock.words[NOW] += 1  # a hundredth of a second after the last
    assert [desk.judge(), desk.judge()] == [PASSED, hot.REASON_RATE]
    desk.clock.words[NOW] -= 5_000_000_000  # a clock that steps back brings no messages
    assert desk.judge() == hot.REASON_RATE
    desk.clock.words[NOW] += 5_000_000_000 + 100_000_000
    desk.boards.quote(origin_tsc=int(desk.clock.words[NOW]))
    assert [desk.judge() for _ in range(11)] == [PASSED] * 10 + [hot.REASON_RATE]


def test_an_order_refused_for_another_reason_costs_no_message(desk: Desk) -> None:
    for _ in range(100):
        assert desk.judge(qty=0) == hot.REASON_QUANTITY
    assert [desk.judge() for _ in range(11)] == [PASSED] * 10 + [hot.REASON_RATE]


@given(
    rate=st.integers(1, 1_000_000_000),
    burst=st.integers(1, 1_000_000_000),
    gaps_ns=st.lists(st.integers(-(10**9), 10**18), min_size=1, max_size=30),
)
@settings(max_examples=300, deadline=None)
def test_the_token_bucket_is_exact(rate: int, burst: int, gaps_ns: list[int]) -> None:
    words = words_of(Limits(**GOOD | {"message_rate_per_s": rate, "message_burst": burst}))
    bucket = np.zeros(state.BUCKET_WORDS, np.int64)
    bucket[LEVEL] = words[BUCKET_MAX]
    level, filled_ns, now_ns = Fraction(burst), 0, 0
    for gap_ns in gaps_ns:
        now_ns += gap_ns
        level = min(level + Fraction(max(now_ns - filled_ns, 0) * rate, 10**9), Fraction(burst))
        filled_ns = max(filled_ns, now_ns)
        taken = level >= 1
        level -= taken
        assert bool(take_token(words, bucket, now_ns)) == taken
        assert Fraction(int(bucket[LEVEL]), 10**9) == level
        assert bucket[FILLED_NS] == filled_ns


def restated(limits: Limits, case: dict[str, Any]) -> int:
    """The rules for a new order or a replace in trading, as a sentence each; Python's integers and fractions cannot overflow or round."""
    qty, px = case["qty"], case["px"]
    if not 0 < qty <= limits.order_qty_max:
        return hot.REASON_QUANTITY
    if qty + case["executed"] > 999_999:
        return hot.REASON_VENUE_QUANTITY
    if not 0 < px <= 2**40:
        return hot.REASON_PRICE
    if qty * px > math.floor(limits.order_notional_max * 10_000):
        return hot.REASON_NOTIONAL
    if case["flags"] != BOOK_VALID:
        return hot.REASON_BOOK_HALTED if case["flags"] & (BOOK_HALTED | BOOK_CLOSED) else hot.REASON_BOOK_NOT_VALID
    if case["bid_sz"] <= 0 or case["ask_sz"] <= 0 or not all(0 < side <= 2**40 for side in (case["bid_px"], case["ask_px"])):
        return hot.REASON_NO_REFERENCE
    if case["age_ns"] > limits.reference_age_max_ms * 1_000_000:
        return hot.REASON_REFERENCE_OLD
    middle = Fraction(case["bid_px"] + case["ask_px"], 2)
    if abs(px - middle) / middle > Fraction(round(limits.collar_bps * 100), 1_000_000):
        return hot.REASON_COLLAR
    increase = qty - case["counted"]
    sign = 1 if case["side"] == BUY else -1
    open_qty = case["open_buy"] if case["side"] == BUY else case["open_sell"]
    if increase > 0 and sign * case["position"] + open_qty + increase > limits.position_max:
        return hot.REASON_POSITION
    return PASSED


px_like = st.one_of(
    st.integers(-5, 5), st.integers(900_000, 1_100_000), st.integers(2**40 - 3, 2**40 + 3), st.integers(-(2**63), 2**63 - 1)
)
qty_like = st.one_of(st.integers(-2, 2), st.integers(1, 2_000), st.integers(-(2**63), 2**63 - 1))
CASES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([MSG_NEW, MSG_REPLACE]),
        "side": st.sampled_from([BUY, SELL]),
        "qty": qty_like,
        "px": px_like,
        "executed": st.integers(0, 1_000_000),
        "counted": st.integers(0, 2_000),
        "flags": st.sampled_from([BOOK_VALID] * 9 + [0, 3, 5, 255]),
        "bid_px": st.one_of(st.integers(990_000, 1_000_000), px_like),
        "ask_px": st.one_of(st.integers(1_000_000, 1_010_000), px_like),
        "bid_sz": st.integers(-1, 20),
        "ask_sz": st.integers(-1, 20),
        "age_ns": st.integers(0, 10**9),
        "position": st.integers(-3_000, 3_000),
        "open_buy": st.integers(0, 3_000),
        "open_sell": st.integers(0, 3_000),
    }
)
LIMITS = st.fixed_dictionaries(
    {
        "order_qty_max": st.sampled_from([1, 1_000, 1_000_000_000]),
        "order_notional_max": st.sampled_from([0.01, 50_000.0, 123_456.78, 1e12]),
        "collar_bps": st.sampled_from([0.01, 0.29, 10.0, 500.0, 10_000.0]),
        "position_max": st.sampled_from([1, 1_000, 10**12]),
        "message_rate_per_s": st.just(1_000_000_000),
        "message_burst": st.just(1_000_000_000),
        "reference_age_max_ms": st.sampled_from([0.5, 250.0, 86_400_000.0]),
    }
)


@given(limits=LIMITS, case=CASES)
@settings(max_examples=1_500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_gate_is_the_rules_restated(boards: Boards, limits: dict[str, Any], case: dict[str, Any]) -> None:
    desk = Desk(boards, **limits)
    boards.quote(origin_tsc=NOW_NS - case["age_ns"], **{name: case[name] for name in ("flags", "bid_px", "bid_sz", "ask_px", "ask_sz")})
    boards.set(boards.positions, KNOWN, **{name: case[name] for name in ("position", "open_buy", "open_sell")})
    order = {name: case[name] for name in ("kind", "side", "qty", "px")}
    assert desk.judge(counted=case["counted"], executed=case["executed"], **order) == restated(desk.rules.limits, case)


def test_every_reason_has_a_sentence_and_fits_below_the_venues() -> None:
    named = {value for name, value in vars(hot).items() if name.startswith("REASON_")}
    assert named | {PASSED} == set(SENTENCES)
    assert max(named) < hot.REASONS < hot.VENUE_REASONS
    assert len(set(SENTENCES.values())) == len(SENTENCES)


BAD_VALUES = [0, -1, 0.0, -0.5, float("nan"), float("inf"), -float("inf"), True, "100", "OFF", "", None]


@pytest.mark.statement(3)
@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("value", BAD_VALUES, ids=repr)
def test_a_limit_that_could_mean_off_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name}={value!r}: expected")):
        Limits(**GOOD | {name: value})
    with pytest.raises(msgspec.ValidationError, match=name):
        msgspec.convert(GOOD | {name: value}, Limits)


# What keeps one order from being a disaster cannot be switched off, only by the word and nowhere else.
NEVER_OFF = {"order_qty_max", "order_notional_max", "collar_bps", "reference_age_max_ms", "position_max"} | {
    "message_rate_per_s",
    "message_burst",
}
WINDOWS = {"notional_window_ms", "collar_window_ms", "duplicates_window_ms", "strategy_window_ms", "order_to_trade_free", "margin_pct"}


@pytest.mark.parametrize("name", GOOD)
def test_only_the_word_switches_a_check_off(name: str) -> None:
    assert can_be_off(name) == (name not in NEVER_OFF | WINDOWS | {"restricted"})
    if can_be_off(name):
        assert getattr(Limits(**GOOD | {name: "off"}), name) == "off"
    else:
        with pytest.raises(ValueError, match=f"{name}='off': expected"):
            Limits(**GOOD | {name: "off"})


@pytest.mark.parametrize("name", GOOD)
def test_every_limit_is_required(name: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=f"missing required field `{name}`"):
        msgspec.convert({key: value for key, value in GOOD.items() if key != name}, Limits)


def test_an_unknown_limit_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `colar_bps`"):
        msgspec.convert(GOOD | {"colar_bps": 5.0}, Limits)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("order_qty_max", 1.5),
        ("position_max", 10.0),
        ("message_burst", 2**40),
        ("collar_bps", 0.001),
        ("margin_pct", 101),
        ("order_qty_step", "odd"),
        ("order_px_step", 100),
        ("self_trade", "cancel"),
        ("restricted", ["AAPL", "AAPL"]),
        ("restricted", ["TOOLONGNAME"]),
        ("restricted", ["NESTLÉ"]),
        ("restricted", [f"S{number}" for number in range(65)]),
    ],
)
def test_a_limit_out_of_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name}={value!r}: ")):
        Limits(**GOOD | {name: value})


def test_limits_that_no_order_could_pass_are_refused() -> None:
    with pytest.raises(ValueError, match="order_qty_min=501: expected at most order_qty_max=500: no order could pass"):
        Limits(**GOOD | {"order_qty_min": 501})
    with pytest.raises(ValueError, match=r"order_notional_min=100000\.01: expected at most order_notional_max=100000\.0"):
        Limits(**GOOD | {"order_notional_min": 100_000.01})


def test_money_that_does_not_fit_its_unit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"order_notional_max=1000000000000\.0: with px_decimals=8"):
        words_of(Limits(**GOOD | {"order_notional_max": 1e12}), px_decimals=8)
    with pytest.raises(ValueError, match=r"order_notional_max=0\.0001"):
        words_of(Limits(**GOOD | {"order_notional_max": 0.0001}), px_decimals=0)
    with pytest.raises(ValueError, match=r"gross_exposure_max=1000000000000\.0: with px_decimals=4 expected 1 to 900719925473 "):
        words_of(Limits(**GOOD | {"gross_exposure_max": 1e12}), symbols=10_000)


def test_the_shipped_limits_hold_for_many_symbols() -> None:
    words = words_of(load(DEFAULT_PATH).risk, symbols=5_000)
    assert words[state.NOTIONAL_SESSION_MAX] == 10**15


def test_a_limit_on_a_sum_can_be_passed_by_one_symbol_alone() -> None:
    """What one symbol comes to is counted up to VALUE_SAFE, and all of them under all their numbers add up within TOTAL_SAFE."""
    for symbols in (1, 2, 500):
        safe = int(words_of(Limits(**GOOD), symbols=symbols)[state.VALUE_SAFE])
        assert symbols * NUMBERINGS * safe <= state.TOTAL_SAFE
        words = words_of(Limits(**GOOD | {"gross_exposure_max": safe // 10_000}), symbols=symbols)
        assert 0 < words[state.GROSS_EXPOSURE_MAX] < safe
        with pytest.raises(ValueError, match="gross_exposure_max=1: with px_decimals=0 expected 1 to 0 "):
            words_of(Limits(**GOOD | {"gross_exposure_max": 1}), px_decimals=0, symbols=state.TOTAL_SAFE // NUMBERINGS)


def test_money_is_rounded_to_the_stricter_side() -> None:
    words = words_of(Limits(**GOOD | {"order_notional_max": 0.29, "order_notional_min": 0.28001}), px_decimals=4)
    assert words[state.NOTIONAL_MAX] == 2_900
    assert words[state.NOTIONAL_MIN] == 2_801


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="there is no machine code to look at")
def test_the_gate_counts_no_references_and_allocates_nothing(desk: Desk) -> None:
    fresh = njit(_nrt=False)(check.py_func)
    fresh(desk.risk, desk.clock, NOW_NS, desk.order[0], PASSED, 0, 0)
    (code,) = fresh.inspect_llvm().values()
    assert "define" in code
    assert "NRT_" not in code
