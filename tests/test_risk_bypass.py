"""There is no way from a strategy to the venue's socket around the gate: by the source, and by what the venue hears."""

import ast
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.gateway.ouch import v42
from engine.gateway.ouch import v50 as ouch
from engine.gateway.ouch.hot import encode
from engine.gateway.stage import packet, templates
from engine.layout import BUY, MSG_CANCEL, SELL
from engine.risk.hot.reasons import PASSED
from engine.wire.credentials import Credentials
from engine.wire.soupbintcp import UNSEQUENCED
from tests.gateway_house import AAPL, MSFT, PX, House, build_houses

houses = pytest.fixture(build_houses)

ROOT = Path(__file__).resolve().parents[1]

# What can put bytes into a socket: the kernel's call, Python's, and libc's by name.
CALLS = {"send_bytes", "send", "sendall", "sendto", "sendmsg", "sendfile", "write", "writev", "sendmmsg", "c_send", "c_sendmsg", "c_write"}
# Rooms that have a socket to somewhere else than a venue we trade at.
NOT_OURS = ("engine/exchange/", "engine/feed/", "engine/wire/")


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node


def called(node: ast.AST) -> list[str]:
    """The names of everything that is called in it, in the order of the text."""
    calls = sorted((call for call in ast.walk(node) if isinstance(call, ast.Call)), key=lambda call: (call.lineno, call.col_offset))
    return [ast.unparse(call.func).split(".")[-1] for call in calls]


def callers(*names: str) -> set[str]:
    """file:function of everything in the engine that calls one of these, but for rooms whose sockets are not the venue's."""
    found = set()
    for path in (ROOT / "engine").rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(NOT_OURS):
            found |= {f"{name}:{function.name}" for function in functions(path) if set(called(function)) & set(names)}
    return found


TAKE = "engine/gateway/hot/take.py"
SWEEP = "engine/gateway/hot/sweep.py"
SEND = "engine/gateway/ouch/hot/send.py"
VENUE = "engine/gateway/ouch/hot"
RECONCILE = f"{VENUE}/reconcile.py"


@pytest.mark.statement(13)
def test_only_the_session_writes_to_a_socket() -> None:
    session = {f"{SEND}:send", f"{SEND}:send_pending"}
    assert callers("send_bytes", "c_send", "c_sendmsg", "sendmmsg") == session
    # Python's: the goodbye when the stage closes, lines of a board, files of our own, and standard output. None of them has an order in it.
    others = {name for name in callers(*CALLS) if name.startswith(("engine/gateway/", "engine/risk/"))}
    assert others == session | {f"{TAKE}:hand_over", f"{SWEEP}:sweep"} | {
        f"{VENUE}/life.py:begin",
        f"{VENUE}/life.py:leave_probe",
        f"{VENUE}/session.py:keep_alive",
        f"{RECONCILE}:reconcile",
        f"{RECONCILE}:cancel_whole",
        "engine/gateway/stage.py:begin_anew",
        "engine/gateway/stage.py:close",
        "engine/risk/rules.py:write",
    }


@pytest.mark.statement(13)
def test_only_an_order_that_passed_the_gate_is_encoded() -> None:
    assert callers("encode_enter", "encode_replace") == {f"{TAKE}:encode"}
    assert callers("encode") >= {f"{TAKE}:take_order"}
    assert {name for name in callers("encode") if name.startswith("engine/gateway/hot")} == {f"{TAKE}:take_order"}
    assert {name for name in callers("take_order") if name.startswith("engine/gateway")} == {f"{TAKE}:take_orders"}
    (order,) = (function for function in functions(ROOT / TAKE) if function.name == "take_order")
    body = [ast.unparse(statement) for statement in order.body]
    judged = next(place for place, text in enumerate(body) if text.startswith("reason = check(gateway.risk, "))
    gate = next(place for place, text in enumerate(body) if text.startswith("if reason != PASSED:"))
    encoded = next(place for place, text in enumerate(body) if "encode(" in text and "risk" not in text.split("=")[0])
    assert judged < gate < encoded
    assert body[gate].rstrip().splitlines()[-1].strip() == "return (np.int64(0), np.int64(NOT_FOUND))"
    assert not any("reason =" in text for text in body[judged + 1 :])
    assert not any(name in ("encode", "send") for text in order.body[:gate] for name in called(text))


@pytest.mark.statement(13)
def test_the_sweep_sends_nothing_but_cancels() -> None:
    (sweep,) = (function for function in functions(ROOT / SWEEP) if function.name == "sweep")
    sends = [call for call in ast.walk(sweep) if isinstance(call, ast.Call) and ast.unparse(call.func) == "send"]
    assert [ast.unparse(call.args[3]) for call in sends] == ["SWEEP_AT"]
    # All that is there are cancels of the whole order, of which the sweep writes nothing but the order's number.
    puts = [
        call for call in ast.walk(sweep) if isinstance(call, ast.Call) and ast.unparse(call.func).startswith(("put_", "encode", "name_"))
    ]
    assert [(ast.unparse(call.func), ast.unparse(call.args[1])) for call in puts] == [("name_cancel", "SWEEP_AT + size")]
    (name,) = (function for function in functions(ROOT / VENUE / "encode.py") if function.name == "name_cancel")
    puts = [call for call in ast.walk(name) if isinstance(call, ast.Call) and ast.unparse(call.func).startswith(("put_", "encode"))]
    assert sorted((ast.unparse(call.func), ast.unparse(call.args[1])) for call in puts) == [
        ("put_token", "at + CANCEL_42_TOKEN"),
        ("put_u32", "at + CANCEL_REF"),
    ]
    assert not [
        node for node in ast.walk(sweep) if isinstance(node, ast.Subscript) and ast.unparse(node).startswith(("wire[", "gateway.wire["))
    ]
    for protocol, cancel in (
        ("ouch50", ouch.CANCEL_ORDER.encode(user_ref=0, quantity=0)),
        ("ouch42", v42.CANCEL_ORDER.encode(token="0000000000DESK", quantity=0)),
    ):
        region = bytes(templates(Credentials.of("USER", "PASSWORD"), "SESSION", 1, "DESK", protocol)[encode.SWEEP_AT :])
        cancels = packet(UNSEQUENCED, cancel) * encode.SWEEP_CANCELS_MAX
        assert region == cancels.ljust(len(region), b"\0")


@pytest.mark.statement(13)
@pytest.mark.parametrize(
    ("path", "name", "sent"),
    [
        (RECONCILE, "cancel_whole", ["OUTBOX_AT"]),
        (RECONCILE, "reconcile", ["QUERY_AT"]),
        (f"{VENUE}/session.py", "keep_alive", ["HEARTBEAT_AT"]),
        (f"{VENUE}/life.py", "begin", ["LOGIN_AT"]),
        (f"{VENUE}/life.py", "leave_probe", ["LOGOUT_AT"]),
    ],
)
def test_what_else_is_sent_holds_no_new_order(path: str, name: str, sent: list[str]) -> None:
    (kernel,) = (function for function in functions(ROOT / path) if function.name == name)
    sends = [call for call in ast.walk(kernel) if isinstance(call, ast.Call) and ast.unparse(call.func) == "send"]
    assert [ast.unparse(call.args[3]) for call in sends] == sent
    assert {name for name in called(kernel) if name.startswith(("put_", "encode"))} <= {"put_digits", "encode_cancel"}


@pytest.mark.statement(13)
def test_the_venue_hears_what_passed_and_nothing_else(houses: Callable[..., House]) -> None:
    """Orders of every kind, good and bad, at random: as many reach the venue as the gate passed, the very ones, and each once."""
    seed = random.randrange(1 << 32)
    print(f"seed={seed}")
    chance = random.Random(seed)
    house = houses(limits={"order_qty_max": 500, "position_max": 3_000, "self_trade": "refuse", "duplicates_max": 2})
    asked, heard = 0, []
    for _ in range(40):
        for _ in range(10):
            # Mostly good ones, each in a field or two not.
            fields = {
                "instrument": chance.choice([AAPL, AAPL, AAPL, AAPL, MSFT, MSFT, MSFT, 5]),
                "side": chance.choice([BUY, BUY, BUY, SELL, SELL, SELL, 0]),
                "strategy": chance.choice([0] * 9 + [1]),
                "qty": chance.choice([1, 100, 100, 200, 500, 500, 501, 0]),
                "px": chance.choice([PX, PX + 100, PX + 200, PX - 100, PX - 200, 2 * PX, 0]),
                "tif": chance.choice([0] * 5 + [1] * 4 + [2]),
            }
            kind = chance.choice(["new", "new", "replace", "cancel"])
            if kind == "new":
                house.new(**fields)
            elif kind == "replace":
                house.replace(chance.randint(1, house.last_id + 1), **fields)
            else:
                house.put(MSG_CANCEL, order_id=chance.randint(1, house.last_id + 1), qty=0)
            asked += 1
        heard += house.settle()
    refused = {report["order_id"] for report in house.told() if report["is"] == "rejected"}
    new = [fields["user_ref"] for kind, fields in heard if kind in ("enter order", "replace order")]
    counts = [int(count) for count in house.facts.counts]
    assert len(heard) == counts[PASSED] > 10
    assert sum(counts) == asked == house.stats.orders
    assert len(new) == len(set(new))
    assert sum(1 for count in counts if count) > 6
    assert refused
