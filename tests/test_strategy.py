"""Strategies: what handlers are told, what their orders become, how they are compiled, and what their authors are told of mistakes."""

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from engine.layout import (
    BOOK_HALTED,
    BOOK_STALE,
    BOOK_VALID,
    BUY,
    MSG_ACCEPTED,
    MSG_INSTRUMENT,
    MSG_QUOTE,
    PHASE_DRAINING,
    PHASE_STARTING,
    PHASE_TRADING,
    POSITION,
    STRATEGY_STATS,
    TIF_IOC,
)
from engine.strategy import api, fields, layout
from engine.strategy.drive import (
    Buy,
    Cancel,
    Driver,
    Replace,
    Sell,
    accepted,
    broken,
    cancelled,
    drive,
    executed,
    level,
    phase,
    quote,
    rejected,
    replaced,
    session,
    status,
    trade,
    wait,
)
from engine.strategy.errors import StrategyError
from engine.strategy.handlers import HANDLERS
from engine.strategy.hot.events import held_of
from engine.strategy.hot.state import RECONCILED
from engine.strategy.load import load
from engine.strategy.new import write_new
from engine.strategy.stage import StrategyStage
from shm.histogram import Distribution
from shm.private import PrivateRing, PrivateTable
from tests.strategies.script import play

ROOT = Path(__file__).resolve().parent.parent
STRATEGIES = ROOT / "tests" / "strategies"
GOOD = STRATEGIES / "good"
BAD = STRATEGIES / "bad"
MARKET_MAKER = "engine.strategy.market_maker"

compiled_only = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="under NUMBA_DISABLE_JIT nothing is compiled")

AT_100 = quote(1_000_000, 1_000_200)


def good(name: str) -> str:
    return str(GOOD / f"{name}.py")


# What handlers are told.


def test_every_kind_of_event_reaches_its_handler() -> None:
    driver = Driver(good("witness"), timer_ms=10, tick_px=50)
    for event in [AT_100, trade(1_000_100, 7), level(999_900, 300, BUY), accepted(1), wait(10), status(BOOK_VALID)]:
        driver.happen(event)
    state = driver.state()
    counts = {name: int(state[name]) for name in ("books", "trades", "levels", "reports", "timers", "statuses")}
    assert counts == {"books": 1, "trades": 1, "levels": 1, "reports": 1, "timers": 1, "statuses": 2}
    assert (state["bid_px"], state["ask_sz"], state["match_id"], state["level_qty"]) == (1_000_000, 100, 7, 300)
    assert (state["tick"], state["lot"], state["period_ns"], bool(state["valid"])) == (50, 100, 10_000_000, True)
    assert state["now"] == driver.now_ns - 1_000, "the timer is the last event that noted the time, a status came after it"
    counted = {"ticks": 5, "quotes": 1, "trades": 1, "levels": 1, "statuses": 1, "reports": 1, "timers": 1, "orders": 1}
    assert driver.stats == counted


def test_an_unknown_symbol_is_not_heard_of() -> None:
    driver = Driver(good("witness"), symbols=["A", "B"])
    driver.happen(AT_100)
    driver.stage.state.place_of[1] = -1
    driver.happen(AT_100)
    assert driver.stats["quotes"] == 1
    assert driver.stats["ticks"] == 4


def test_each_symbol_has_its_own_state() -> None:
    driver = Driver(good("witness"), symbols=["AAPL", "MSFT"])
    for event in [quote(10_000, 10_200, symbol="AAPL"), quote(20_000, 20_200, symbol="MSFT"), quote(20_100, 20_300, symbol="MSFT")]:
        driver.happen(event)
    assert driver.orders == [Buy(1, 10_000, 10, symbol="AAPL"), Buy(2, 20_000, 10, symbol="MSFT")]
    assert [int(driver.state(symbol)["books"]) for symbol in ("AAPL", "MSFT")] == [1, 2]


def test_a_renumbered_instrument_keeps_its_place() -> None:
    driver = Driver(good("witness"))
    driver.happen(AT_100)
    state = driver.stage.state
    driver.ticks.put(MSG_INSTRUMENT, 9, driver.now_ns, {"symbol": int(state.places[0].symbol)})
    driver.turn()
    assert (state.place_of[1], state.place_of[9], state.places[0].instrument) == (-1, 0, 9)
    assert (state.places[0].tick_px, state.places[0].lot_qty) == (100, 100), "a venue that names none leaves what was known"


def test_nothing_is_told_of_a_book_that_is_not_valid_but_its_status() -> None:
    driver = Driver(good("witness"), timer_ms=10)
    stale = quote(1_000_000, 1_000_200, flags=BOOK_VALID | BOOK_STALE)
    script = [AT_100, status(BOOK_STALE), stale, trade(1_000_000, 1), level(1_000_000, 1, BUY), wait(10), cancelled(1)]
    for event in script:
        driver.happen(event)
    state = driver.state()
    counts = {name: int(state[name]) for name in ("books", "trades", "levels", "timers", "statuses", "reports")}
    assert counts == {"books": 1, "trades": 0, "levels": 0, "timers": 0, "statuses": 2, "reports": 1}
    assert (int(state["flags"]), bool(state["valid"])) == (BOOK_STALE, False)
    assert driver.stats["withheld"] == 4
    driver.happen(AT_100)
    assert (int(driver.state()["books"]), int(driver.state()["statuses"]), int(driver.state()["flags"])) == (2, 3, BOOK_VALID)


def test_before_the_first_valid_quote_nothing_is_valid() -> None:
    driver = Driver(good("witness"), timer_ms=10)
    for event in [trade(1_000_000, 1), wait(30)]:
        driver.happen(event)
    assert driver.stats == {"ticks": 2, "trades": 1, "withheld": 4}


def test_a_quote_that_ends_validity_is_told_as_a_status() -> None:
    driver = Driver(good("witness"))
    driver.happen(AT_100)
    driver.happen(quote(1_000_000, 1_000_200, flags=BOOK_HALTED))
    assert (int(driver.state()["statuses"]), int(driver.state()["flags"])) == (2, BOOK_HALTED)
    driver.happen(quote(1_000_100, 1_000_200, flags=BOOK_HALTED))
    assert int(driver.state()["statuses"]) == 2, "told once, not at every quote"


def test_while_draining_only_reports_and_statuses_are_told() -> None:
    driver = Driver(good("witness"), timer_ms=10)
    for event in [AT_100, phase(PHASE_DRAINING), AT_100, trade(1_000_000, 1), wait(50), executed(1), status(BOOK_STALE)]:
        driver.happen(event)
    state = driver.state()
    counts = {name: int(state[name]) for name in ("books", "trades", "timers", "reports", "statuses", "position_told")}
    assert counts == {"books": 1, "trades": 0, "timers": 0, "reports": 1, "statuses": 2, "position_told": 10}


def test_timers_keep_their_period_and_make_up_for_none_they_missed() -> None:
    driver = Driver(good("witness"), timer_ms=10)
    driver.happen(AT_100)
    for _ in range(5):
        driver.happen(wait(10))
    assert int(driver.state()["timers"]) == 5
    driver.clock.words[1] += 95_000_000
    driver.happen(wait(0.001))
    assert int(driver.state()["timers"]) == 6, "nine periods late, one call"
    driver.happen(wait(9.9))
    assert int(driver.state()["timers"]) == 6
    driver.happen(wait(0.2))
    assert int(driver.state()["timers"]) == 7


def test_now_never_goes_back() -> None:
    driver = Driver(good("witness"))
    driver.happen(AT_100)
    now = int(driver.state()["now"])
    driver.clock.words[1] -= 500_000
    driver.happen(AT_100)
    assert int(driver.state()["now"]) == now


# What orders become.

EVERY = {"required": 100}


def test_every_order_function_writes_its_order() -> None:
    orders = drive(good("every_order"), [AT_100] * 6, params=EVERY)
    assert orders == [
        Buy(1, 1_000_000, 100),
        Sell(2, 1_000_200, 100),
        Replace(3, 1, 999_900, 101),
        Cancel(3),
        Buy(4, 1_000_200, 100, TIF_IOC),
        Buy(5, 1_000_000, 100),
    ]


def test_an_order_carries_the_stamps_of_its_event() -> None:
    driver = Driver(good("every_order"), params=EVERY)
    slots = driver.stage.state.orders.slots
    for _ in range(4):
        driver.happen(AT_100)
    assert [int(side) for side in slots["side"][:4]] == [66, 83, 66, 66], "a replace and a cancel carry the side of their order"
    assert int(slots["origin_tsc"][3]) == int(slots["ts_ns"][3]) == driver.now_ns
    assert [int(slots["instrument"][3]), int(slots["age_tsc"][3])] == [1, 0]
    assert driver.first_order_tsc == driver.now_ns - 3_000


def test_ids_grow_by_one_and_refused_orders_take_none() -> None:
    driver = Driver(good("every_order"), params=EVERY | {"times": 5})
    driver.happen(phase(PHASE_STARTING))
    assert driver.happen(AT_100) == []
    assert driver.stats["refused_phase"] == 3, "the replace of an order that was never sent, and its cancel, are nothing to refuse"
    driver.happen(phase(PHASE_TRADING))
    assert [order.order_id for order in driver.happen(AT_100)] == [1, 2, 3, 3, 4]


def test_no_order_leaves_without_a_session_but_a_cancel_does() -> None:
    driver = Driver(good("anyway"))
    driver.happen(AT_100)
    driver.happen(session(False))
    assert driver.happen(status(BOOK_VALID)) == [Cancel(7)]
    assert driver.stats["refused_phase"] == 1
    driver.happen(session(True))
    assert driver.happen(status(BOOK_VALID)) == [Buy(2, 1_000_000, 1), Cancel(7)]


def test_no_order_leaves_while_draining_but_a_cancel_does() -> None:
    driver = Driver(good("anyway"))
    assert driver.happen(AT_100) == [Buy(1, 1_000_000, 1), Cancel(7)]
    driver.happen(phase(PHASE_DRAINING))
    assert driver.happen(status(BOOK_VALID)) == [Cancel(7)]
    assert driver.happen(accepted(1)) == []
    assert driver.stats["refused_phase"] == 2


def test_no_order_leaves_on_a_book_that_is_not_valid() -> None:
    driver = Driver(good("anyway"), symbols=["A", "B"])
    driver.happen(quote(1_000_000, 1_000_200, symbol="A"))
    before = driver.stats.get("refused_invalid", 0)
    assert driver.happen(trade(1_000_000, 1, symbol="A")) == [Buy(2, 1_000_000, 1, symbol="A")]
    assert driver.stats["refused_invalid"] == before + 3, "B has no book yet; a negative number and 2^40 are no instruments"
    driver.happen(quote(1_000_000, 1_000_200, symbol="B"))
    assert driver.happen(trade(1_000_000, 1, symbol="A")) == [Buy(4, 1_000_000, 1, symbol="A"), Buy(5, 1_000_000, 1, symbol="B")]
    assert driver.happen(status(BOOK_STALE, symbol="A")) == [Cancel(7, symbol="A")]
    assert driver.happen(accepted(2)) == []


def test_a_full_orders_ring_refuses_and_counts() -> None:
    driver = Driver(good("every_order"), params=EVERY | {"times": 20}, orders_max=4)
    assert [order.order_id for order in driver.happen(AT_100)] == [1, 2, 3, 3]
    assert driver.stats["refused_full"] == 10, "of 16 more, 6 are replaces and cancels of orders that were never sent"
    assert driver.stats["orders"] + driver.stats["replaces"] + driver.stats["cancels"] == 4
    assert len(driver.happen(AT_100)) == 4, "room again once the gateway has read"


def test_positions_follow_executions_before_the_strategy_is_told() -> None:
    driver = Driver(good("witness"))
    for event, expected in [(AT_100, 0), (executed(1, 4), 4), (executed(1, 6), 10), (broken(1, 4), 6)]:
        driver.happen(event)
        assert driver.position() == expected
        assert int(driver.state()["position_told"]) == expected


def test_a_sale_lowers_the_position() -> None:
    driver = Driver(good("every_order"), params=EVERY)
    for event in [AT_100, AT_100, executed(2, 30)]:
        driver.happen(event)
    assert driver.position() == -30


def test_latencies_are_recorded() -> None:
    driver = Driver(good("every_order"), params=EVERY)
    driver.happen(AT_100)
    driver.happen(phase(PHASE_STARTING))
    driver.happen(AT_100)
    hops = [Distribution.of(words) for words in driver.hops.words()]
    assert [hop.count for hop in hops] == [0, 2, 1, 0, 0, 0, 0, 0], "the second quote was polled, and no order followed"


def test_a_turn_is_bounded_and_takes_reports_first() -> None:
    driver = Driver(good("witness"))
    driver.happen(AT_100)
    stage, clock = driver.stage, driver.clock
    for _ in range(100):
        driver.ticks.put(MSG_QUOTE, 1, driver.now_ns, {"bid_px": 1, "ask_px": 2, "bid_sz": 1, "ask_sz": 1, "flags": BOOK_VALID})
        driver.reports.put(MSG_ACCEPTED, 1, driver.now_ns, {"order_id": 1})
    assert [stage.step(stage.state, clock) for _ in range(3)] == [128, 72, 0]
    assert int(driver.state()["reports"]) == 100
    assert driver.stats["ticks"] == 102


# Parameters and State.

PARAMS_REFUSED = [
    ({}, "strategy.params: missing parameter 'required': it has no default, so the config must give it"),
    ({"required": 1, "tmes": 2}, "strategy.params: unknown parameter 'tmes'; did you mean 'times'?"),
    ({"required": 1, "zzz": 2}, "strategy.params: unknown parameter 'zzz'; known: times, scale, loud, required"),
    ({"required": "1"}, "strategy.params.required='1': expected `int`, got `str`"),
    ({"required": 1.5}, "strategy.params.required=1.5: expected `int`, got `float`"),
    ({"required": True}, "strategy.params.required=True: expected `int`, got `bool`"),
    ({"required": 1, "times": 0}, "strategy.params.times=0: expected `int` >= 1"),
    ({"required": 1, "loud": 1}, "strategy.params.loud=1: expected `bool`, got `int`"),
    ({"required": 1 << 63}, f"strategy.params.required={1 << 63}: expected at most {(1 << 63) - 1}"),
    (
        {"required": 1, "scale": float("nan")},
        "strategy.params.scale=nan: expected a finite number: a limit that is not a number never holds",
    ),
]


@pytest.mark.parametrize(("given", "expected"), PARAMS_REFUSED)
def test_a_wrong_parameter_is_named(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(StrategyError) as refused:
        load(good("every_order")).params(given)
    assert str(refused.value) == expected


def test_parameters_of_a_strategy_that_has_none() -> None:
    with pytest.raises(StrategyError, match=r"strategy\.params: size: this strategy has no parameters"):
        load(good("witness")).params({"size": 1})


def test_a_whole_number_is_good_for_a_fraction() -> None:
    record = load(good("every_order")).params({"required": 7, "scale": 2})[0]
    assert [(name, record[name].item()) for name in record.dtype.names] == [("times", 1), ("scale", 2.0), ("loud", False), ("required", 7)]


def test_state_begins_at_its_defaults() -> None:
    assert Driver(good("every_order"), params=EVERY).state()["last_id"] == -1


def test_a_state_class_may_hold_others() -> None:
    memory = load(MARKET_MAKER).memory(2)
    assert memory.dtype["bid"].names == ("id", "live", "px", "open", "quiet_until_ns")
    assert memory.shape == (2,)


def test_records_are_signed_views_of_the_rings_own() -> None:
    for name in ("INSTRUMENT", "QUOTE", "LEVEL", "TRADE", "STATUS", "ORDER", "REPORT"):
        ours = getattr(layout, name)
        theirs = getattr(__import__("engine.layout", fromlist=[name]), name)
        assert ours.itemsize == theirs.itemsize == 64
        assert [(field, place[1]) for field, place in ours.fields.items()] == [(field, place[1]) for field, place in theirs.fields.items()]
        assert not [field for field in ours.names if ours[field] == np.uint64]


# Compiled, cached, plain.


def python(code: str, cache: Path, **environment: str) -> str:
    """What a fresh interpreter prints, with kernels cached in `cache`."""
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, cwd=ROOT,
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache), **environment},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


COUNTING = """
from numba.core import event
from engine.strategy.drive import Driver, quote
with event.install_recorder("numba:compile") as recorder:
    driver = Driver({strategy!r})
    driver.happen(quote(1_000_000, 1_000_200))
compiled = sum(1 for _, happened in recorder.buffer if happened.is_start)
print(compiled, driver.orders[0].qty)
"""

SHORT = """
from engine.strategy.api import *
LOT = 10
def on_book(ctx, params, state, quote):
    buy(ctx, quote.instrument, quote.bid_px, LOT)
"""


@compiled_only
def test_a_second_start_compiles_nothing_and_a_change_compiles_anew(tmp_path: Path) -> None:
    mine, cache = tmp_path / "mine.py", tmp_path / "cache"
    mine.write_text(SHORT)
    code = COUNTING.format(strategy=str(mine))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        compiled, qty = map(int, output.split())
        assert (compiled > 0, qty) == (True, 10)
    assert python(code, cache).split() == ["0", "10"], "two first starts at once spoil nothing, and the third compiles nothing"
    assert not list((cache / "strategies").glob(".*")), "no draft is left"

    mine.write_text(SHORT.replace("LOT = 10", "LOT = 20"))
    compiled, qty = map(int, python(code, cache).split())
    assert (compiled > 0, qty) == (True, 20)
    mine.write_text(SHORT)
    assert python(code, cache).split() == ["0", "10"], "what was compiled before is still there"


def test_a_change_beside_a_strategy_compiles_anew(tmp_path: Path) -> None:
    for name in ("with_helpers", "fair_value", "rounding"):
        shutil.copy(GOOD / f"{name}.py", tmp_path)
    strategy = str(tmp_path / "with_helpers.py")
    assert drive(strategy, [quote(1_000_050, 1_000_300)]) == [Buy(1, 999_900, 1)]
    names = {load(strategy).turn}
    for name, old, new, px in [("fair_value", "EDGE = 200", "EDGE = 300", 999_800), ("rounding", "TICK = 100", "TICK = 1000", 999_700)]:
        path = tmp_path / f"{name}.py"
        path.write_text(path.read_text().replace(old, new))
        assert drive(strategy, [quote(1_000_050, 1_000_300)]) == [Buy(1, px, 1)]
        names.add(load(strategy).turn)
    assert len(names) == 3


def test_two_strategies_may_each_have_their_own_helpers(tmp_path: Path) -> None:
    for folder, edge in (("one", 200), ("two", 500)):
        shutil.copytree(GOOD, tmp_path / folder)
        helper = tmp_path / folder / "fair_value.py"
        helper.write_text(helper.read_text().replace("EDGE = 200", f"EDGE = {edge}"))
    sent = [drive(str(tmp_path / folder / "with_helpers.py"), [AT_100]) for folder in ("one", "two")]
    assert sent == [[Buy(1, 999_900, 1)], [Buy(1, 999_600, 1)]]
    assert "fair_value" not in sys.modules


LOOKING = """
import engine.strategy.drive as drive
driver = drive.Driver("engine.strategy.market_maker")
step = driver.stage.step
machine = step.inspect_llvm(step.signatures[0])
print(len(machine) > 10_000, *(word in machine for word in ("NRT_Allocate", "NRT_incref", "NRT_decref", "pickledata")))
"""


@compiled_only
def test_the_turn_allocates_nothing_counts_no_references_and_cannot_raise(tmp_path: Path) -> None:
    assert python(LOOKING, tmp_path).split() == ["True", "False", "False", "False", "False"]


@pytest.mark.parametrize("strategy", [MARKET_MAKER, good("arithmetic")], ids=["market_maker", "arithmetic"])
def test_plain_python_sends_the_same_orders(strategy: str, tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed={seed}")
    finished = subprocess.run(
        [sys.executable, "-m", "tests.strategies.script", strategy, str(seed)], capture_output=True, text=True, timeout=240, cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    compiled = [str(order) for order in play(strategy, seed)]
    assert len(compiled) > 100
    assert finished.stdout.splitlines() == compiled


def test_a_record_in_plain_python_reads_as_numbers_and_names_what_it_has(tmp_path: Path) -> None:
    output = python(
        """
import numpy as np
from engine.strategy.handlers import HANDLERS
from engine.strategy.load import load
from engine.strategy.plain import readable
memory = load("engine.strategy.market_maker").memory(1)
window = readable(memory[0])
window.bid.px = 7
print(type(window.bid.px).__name__, memory[0]["bid"]["px"])
try:
    window.bid.pxx = 1
except AttributeError as error:
    print(error)
print(window.ask)
""",
        tmp_path,
        NUMBA_DISABLE_JIT="1",
    )
    assert output.splitlines() == [
        "int 7",
        "pxx: expected one of id, live, px, open, quiet_until_ns",
        "id=0, live=0, px=0, open=0, quiet_until_ns=0",
    ]


# What a strategy's author is told.


def told(path: Path) -> str:
    """What the trader is told of a strategy that cannot run, without the folder it is in."""
    with pytest.raises(StrategyError) as refused:
        Driver(str(path))
    return str(refused.value).replace(f"{path.parent}/", "")


def expected_of(path: Path) -> str:
    """The text that a bad strategy ends with, as comments."""
    _, _, said = path.read_text().partition("# says:\n")
    return "\n".join(line[2:] for line in said.splitlines())


@compiled_only
@pytest.mark.parametrize("path", sorted(BAD.glob("*.py")), ids=lambda path: path.stem)
def test_a_mistake_is_told_in_its_authors_words(path: Path) -> None:
    assert told(path) == expected_of(path)


def test_every_line_told_is_a_line_of_the_file() -> None:
    for path in BAD.glob("*.py"):
        lines = path.read_text().splitlines()
        for number, shown in re.findall(rf"{path.name}:(\d+): .*\n    (.*)", expected_of(path)):
            assert lines[int(number) - 1].strip() == shown.strip(), path.name


def test_a_strategy_that_is_not_there() -> None:
    with pytest.raises(StrategyError, match=r"strategy=\./nowhere\.py: there is no such file \(looked in .*\)"):
        load("./nowhere.py")
    with pytest.raises(
        StrategyError, match=r"strategy=engine\.strategy\.nowhere: there is no such module\n.*a file such as \./nowhere\.py"
    ):
        load("engine.strategy.nowhere")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "bytes.py"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StrategyError, match="not Python source"):
        load(str(path))


def test_a_circle_of_imports_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import b\nfrom engine.strategy.api import *\ndef on_book(ctx, params, state, quote):\n    b.f()\n")
    (tmp_path / "b.py").write_text("import a\ndef f():\n    return 1\n")
    with pytest.raises(StrategyError, match=r"b\.py:1: imports a, which imports this file"):
        load(str(tmp_path / "a.py"))


def test_a_file_may_have_any_name_and_a_main_part(tmp_path: Path) -> None:
    path = tmp_path / "my strategy-1.py"
    path.write_text(SHORT + "if __name__ == '__main__':\n    import pandas\n    pandas.read_csv('x')\n")
    assert drive(str(path), [AT_100]) == [Buy(1, 1_000_000, 10)]


def test_an_import_is_seen_wherever_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("try:\n    import pandas\nexcept ImportError:\n    import os\n" + SHORT)
    with pytest.raises(StrategyError, match=r"mine\.py:2: imports pandas.*\n(.*\n)*.*mine\.py:4: imports os"):
        load(str(path))


def test_the_api_tells_of_everything_in_it() -> None:
    told_of = api.__doc__ or ""
    for name in api.__all__:
        if name.islower():
            assert f"{name}(ctx" in told_of, name
    assert [name for name in HANDLERS if f"def {name}(" not in told_of] == []


@compiled_only
def test_a_mistake_beside_a_strategy_is_told_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import b\nfrom engine.strategy.api import *\ndef on_book(ctx, params, state, quote):\n    b.f(quote)\n")
    (tmp_path / "b.py").write_text("def f(anything):\n    return anything.bidpx\n")
    assert told(tmp_path / "a.py").startswith("b.py:2: in f: anything has no field bidpx; did you mean bid_px?\n")
    (tmp_path / "b.py").write_text("def f(quote):\n    return quote.bid_px + (1, 2)\n")
    assert told(tmp_path / "a.py").startswith("b.py:2: in f: `+` between a whole number and a tuple of 2\n")


def stage(**changes: Any) -> StrategyStage:
    from engine.layout import CONTROL, ORDERS, REPORTS, TICKS
    from shm.layout import HISTOGRAM

    shared = {
        "ticks": PrivateRing(16, TICKS, ["strategy"]), "orders": PrivateRing(16, ORDERS, ["gateway"]),
        "reports": PrivateRing(16, REPORTS, ["strategy"]), "stats": PrivateTable(STRATEGY_STATS), "control": PrivateTable(CONTROL),
        "hops": PrivateTable(HISTOGRAM, 8), "strategy": good("witness"), "params": {}, "symbols": ["A"], "timer_ms": 100,
    }  # fmt: skip
    return StrategyStage(**{**shared, **changes})


def test_the_stage_is_what_a_loop_needs() -> None:
    made = stage(symbols=["A", "B"], px_decimals=6)
    assert [int(px) for px in made.state.places["tick_px"]] == [10_000, 10_000]
    assert made.reasons == {}
    assert sys.modules[made.step_module].step is made.step
    made.close()
    with pytest.raises(StrategyError, match=r"strategy\.symbols is empty"):
        stage(symbols=[])
    with pytest.raises(StrategyError, match=r"strategy\.timer_ms=0"):
        stage(timer_ms=0)


# The file to start from.


def test_a_new_strategy_trades_as_it_is_written(tmp_path: Path) -> None:
    path = write_new("my_first", tmp_path)
    assert path == tmp_path / "my_first.py"
    moved = quote(1_000_100, 1_000_200)
    script = [AT_100, accepted(1), accepted(2), executed(1, 40), moved, cancelled(1), moved, rejected(3), moved, wait(100), moved]
    sent = [Buy(1, 1_000_000, 100), Sell(2, 1_000_200, 100), Cancel(1), Buy(3, 1_000_100, 100), Buy(4, 1_000_100, 100)]
    assert drive(str(path), script) == sent
    assert drive(str(path), [*script, status(BOOK_STALE)]) == [*sent, Cancel(4), Cancel(2)]


def test_a_new_strategy_respects_its_limit(tmp_path: Path) -> None:
    path = write_new("my_first", tmp_path)
    driver = Driver(str(path), params={"position_max": 150})
    for event in [AT_100, accepted(1), executed(1)]:
        driver.happen(event)
    assert driver.happen(AT_100) == [Buy(3, 1_000_000, 50)]
    driver.happen(executed(3))
    assert driver.happen(AT_100) == []


NAMES_REFUSED = ["mine.py", "my-strategy", "1st", "class", "", "a/b", "../up", "ünder", "__init__"]


@pytest.mark.parametrize("name", NAMES_REFUSED)
def test_a_name_that_will_not_do_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match=r"^name="):
        write_new(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("precious")
    with pytest.raises(StrategyError, match="there is a file of this name already"):
        write_new("mine", tmp_path)
    assert (tmp_path / "mine.py").read_text() == "precious"
    with pytest.raises(StrategyError, match="there is no such folder"):
        write_new("mine", tmp_path / "nowhere")


def test_the_fields_of_a_record_are_laid_out_as_declared() -> None:
    class Inner(fields.State):
        a: int
        b: bool = True

    class Outer(fields.State):
        x: float = 2.5
        inner: Inner

    record = fields.make_records(fields.initial(Outer), 3, fields.record_dtype(Outer))
    assert record.dtype.names == ("x", "inner")
    assert [(float(one["x"]), int(one["inner"]["a"]), bool(one["inner"]["b"])) for one in record] == [(2.5, 0, True)] * 3
    assert replaced(1).order_id == 1


# What there is at the start.


def test_a_position_begins_with_what_the_gateway_reconciled() -> None:
    driver = Driver("engine.strategy.market_maker", symbols=["TEST", "ELSE"], held={"TEST": -300})
    driver.turn()
    assert (driver.position("TEST"), driver.position("ELSE")) == (-300, 0)


def test_a_position_is_taken_over_once() -> None:
    """Executions since are the strategy's own reports, which the board has counted too."""
    driver = Driver("engine.strategy.market_maker", symbols=["TEST"])
    held = driver.stage.state.held
    driver.happen(session(False))
    driver.stage.state.words[RECONCILED] = 0
    held[1].position = 70
    driver.turn()
    assert driver.position() == 0
    driver.happen(session(True))
    assert driver.position() == 70
    held[1].position = 90
    driver.happen(session(False))
    driver.happen(session(True))
    assert driver.position() == 70


def test_no_order_leaves_in_the_turn_in_which_the_session_comes_up(tmp_path: Path) -> None:
    """What it executes would be on the board, and told of in a report as well."""
    output = python(
        """
from engine.layout import BUY, TIF_DAY
from engine.strategy.drive import Driver, quote
from engine.strategy.hot.api import new_order
from engine.strategy.hot.state import RECONCILED, context_of
driver = Driver("engine.strategy.market_maker", symbols=["TEST"])
driver.happen(quote(187.0, 187.1))
state = driver.stage.state
def order_now():
    return new_order(context_of(state, driver.clock), 1, BUY, 1_000_000, 100, TIF_DAY) > 0
told = [order_now()]
state.words[RECONCILED] = 0
refused = driver.stats.get("refused_phase", 0)
told += [order_now(), driver.stats["refused_phase"] - refused]
driver.turn()
print(*told, order_now())
""",
        tmp_path,
        NUMBA_DISABLE_JIT="1",
    )
    assert output.split() == ["True", "False", "1", "True"]


def test_an_instrument_named_after_the_session_is_up_begins_with_its_position() -> None:
    driver = Driver("engine.strategy.market_maker", symbols=["TEST"])
    state = driver.stage.state
    state.held[1].position, state.held[8].position = 50, 80
    # Named again it stays what it is; named first, it is what the board says.
    driver.ticks.put(MSG_INSTRUMENT, 8, driver.now_ns, {"symbol": int(state.places[0].symbol)})
    driver.turn()
    assert driver.position() == 0
    state.places[0].instrument = -1
    driver.ticks.put(MSG_INSTRUMENT, 8, driver.now_ns, {"symbol": int(state.places[0].symbol)})
    driver.turn()
    assert driver.position() == 80


def test_a_line_that_is_being_written_is_read_when_it_is_whole() -> None:
    held = np.zeros(4, POSITION).view(np.recarray)
    held[2].version, held[2].position = 6, -5
    assert (held_of(held, 2), held_of(held, 3), held_of(held, 4)) == (-5, 0, 0)
