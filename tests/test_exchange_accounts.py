"""Several accounts at the simulated exchange: who is let in as whom, what each is told, and whose the positions are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.book.book import check_invariants
from engine.exchange.stage import Account
from engine.gateway.ouch import v50 as ouch
from engine.layout import INSTRUMENTS_MAX
from engine.wire import soupbintcp
from tests.exchange_rig import Rig, SoupClient, cancel, enter, open_orders, packet, replace, rig

SECOND = 1_000_000_000
OTHERS = (Account("BETA", "TWO"), Account("GAMMA", "THREE"))


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Rig]:
    """An exchange with three accounts: TICK, BETA and GAMMA."""
    with rig(tmp_path, accounts=OTHERS) as exchange:
        exchange.run()
        exchange.messages()
        yield exchange
        check_invariants(exchange.stage.state.venue.book)


def logged_in(made: Rig, account: int, sequence: int = 1) -> SoupClient:
    client = SoupClient(made)
    who = made.stage.accounts[account]
    assert client.login(who.username, who.password, sequence=sequence)[0] == soupbintcp.LOGIN_ACCEPTED.code
    return client


def line(made: Rig, account: int, instrument: int = 1) -> tuple[int, ...]:
    """position, bought, sold, cash, open_buy, open_sell, fills."""
    record = made.positions.records[account * INSTRUMENTS_MAX + instrument]
    return tuple(int(record[name]) for name in ("position", "bought", "sold", "cash", "open_buy", "open_sell", "fills"))


def test_each_account_has_its_own_numbers_reports_and_positions(made: Rig) -> None:
    first, second, third = (logged_in(made, account) for account in range(3))
    first.order(enter(1, "S", 300, 1_500_000))
    assert first.reports(1)[0]["user_ref"] == 1
    second.order(enter(1, "B", 200, 1_500_000))
    accepted, bought = second.reports(2)
    assert (accepted["type"], accepted["user_ref"], accepted["order_ref"]) == ("A", 1, (1 << 40) + 1)
    sold = first.reports(1)[0]
    assert (bought["type"], bought["user_ref"], bought["quantity"], bought["liquidity"]) == ("E", 1, 200, "R")
    assert (sold["type"], sold["user_ref"], sold["quantity"], sold["liquidity"]) == ("E", 1, 200, "A")
    assert bought["match"] == sold["match"]
    assert line(made, 0) == (-200, 0, 200, 200 * 1_500_000, 0, 100, 1)
    assert line(made, 1) == (200, 200, 0, -200 * 1_500_000, 0, 0, 1)
    assert line(made, 2) == (0,) * 7
    third.order(cancel(1))
    third.order(replace(1, 2, 300, 1_490_000))
    assert [(report["type"], report["user_ref"]) for report in third.reports(1)] == [("J", 2)], "another account's order is not there"
    assert [(order["qty"], order["user_ref"]) for order in open_orders(made)] == [(100, 1)]


def test_a_password_of_another_account_lets_nobody_in(made: Rig) -> None:
    for username, password in (("BETA", "PATH"), ("TICK", "TWO"), ("GAMMA", "TWO")):
        assert SoupClient(made).login(username, password) == (soupbintcp.LOGIN_REJECTED.code, b"A")
    assert made.count("logins") == 0


def test_who_leaves_takes_only_its_own_orders_along(made: Rig) -> None:
    first, second = logged_in(made, 0), logged_in(made, 1)
    for client in (first, second):
        client.order(enter(1, "B", 100, 1_490_000))
        client.order(enter(2, "B", 100, 1_480_000))
        client.reports(2)
    second.socket.close()
    first.until(lambda: made.count("open_orders") == 2, "the sweep")
    assert [order["user_ref"] for order in open_orders(made)] == [1, 2]
    first.order(cancel(1))
    assert [report["type"] for report in first.reports(1)] == ["C"]
    assert line(made, 1)[4] == 0
    back = logged_in(made, 1, sequence=3)
    assert {(report["type"], report["user_ref"]) for report in back.reports(2)} == {("C", 1), ("C", 2)}


def test_a_second_login_takes_over_once_the_first_ones_orders_are_cancelled(made: Rig) -> None:
    """A client whose connection died without a word comes back before its silence is noticed."""
    dead, other = logged_in(made, 0), logged_in(made, 1)
    for number in range(1, 1_001):
        dead.order(enter(number, "B", 100, 1_000_000 + 100 * (number % 50)))
    dead.reports(1_000)
    other.order(enter(1, "B", 100, 1_490_000))
    other.reports(1)
    back = logged_in(made, 0, sequence=1_001)
    assert made.count("takeovers") == 1
    assert made.count("open_orders") == 1, "before the login is answered"
    assert {report["user_ref"] for report in back.reports(1_000)} == set(range(1, 1_001))
    dead.wait_closed()
    back.order(enter(2_000, "B", 100, 1_490_000))
    assert back.reports(1)[0]["type"] == "A"
    other.order(cancel(1))
    assert other.reports(1)[0]["type"] == "C"


def test_a_login_that_is_refused_takes_nothing_over(made: Rig) -> None:
    client = logged_in(made, 0)
    client.order(enter(1, "B", 100, 1_490_000))
    client.reports(1)
    for login in ({"password": "PATHS"}, {"session": "OTHER"}, {"sequence": 3}):
        assert SoupClient(made).login(**login)[0] == soupbintcp.LOGIN_REJECTED.code
    client.order(cancel(1))
    assert client.reports(1)[0]["reason"] == "U"
    assert made.count("takeovers") == 0


def test_strangers_who_say_nothing_are_let_go_and_keep_nobody_out_for_long(made: Rig) -> None:
    client = logged_in(made, 0)
    strangers = [SoupClient(made) for _ in range(20)]
    client.until(lambda: made.count("clients") == 11, "as many strangers as there is room for")
    client.order(enter(1, "B", 100, 1_490_000))
    client.reports(1)
    for _ in range(15):
        made.step(after_ns=SECOND)
        client.send(packet(soupbintcp.CLIENT_HEARTBEAT))
        for stranger in strangers:
            stranger.send(packet(soupbintcp.DEBUG, b"still here"))
        client.poll()
    made.step(after_ns=1)
    strangers[0].wait_closed()
    assert made.count("open_orders") == 1
    second = SoupClient(made)
    second.send(packet(*split(soupbintcp.LOGIN_REQUEST.encode(username="BETA", password="TWO", session="", sequence="1"))))
    for _ in range(40):
        made.step(after_ns=SECOND)
        client.send(packet(soupbintcp.CLIENT_HEARTBEAT))
        for _ in range(100):
            second.poll()
    assert second.inbox[0][0] == soupbintcp.LOGIN_ACCEPTED.code


def split(raw: bytes) -> tuple[int, bytes]:
    return raw[0], raw[1:]


def test_a_client_that_floods_does_not_keep_the_others_from_being_heard(made: Rig) -> None:
    noisy, quiet = logged_in(made, 0), logged_in(made, 1)
    noisy.send(b"".join(packet(soupbintcp.UNSEQUENCED, enter(number, "B", 1, 100)) for number in range(1, 800)))
    quiet.order(enter(1, "B", 1, 100))
    for _ in range(3):
        made.step()
    assert int(made.stage.state.venue.clients.words[1, 1]) == 1, "the quiet one's order was not done"
    assert int(made.stage.state.venue.clients.words[0, 1]) < 800, "the flood was over already: nothing was tested"
    assert noisy.reports(799)[-1]["user_ref"] == 799


def test_the_session_ends_for_all(made: Rig) -> None:
    from engine.layout import PHASE_DRAINING

    clients = [logged_in(made, account) for account in (0, 2)]
    made.phase(PHASE_DRAINING)
    made.control.records["drained"][0] = 1
    for client in clients:
        assert client.receive(1) == [(soupbintcp.END_OF_SESSION, b"")]
        client.order(enter(1, "B", 100, 1_500_000))
        assert client.reports(1)[0]["reason"] == ouch.REJECT_CLOSED


@pytest.mark.parametrize(
    ("accounts", "expected"),
    [
        ((Account("tick", "X"),), "expected different usernames"),
        ((Account("TOOLONG", "X"),), "username='TOOLONG'"),
        (tuple(Account(f"A{number}", "X") for number in range(64)), "accounts=65 of them"),
    ],
)
def test_accounts_that_cannot_be_are_named(tmp_path: Path, accounts: tuple[Account, ...], expected: str) -> None:
    with pytest.raises(ValueError, match=expected), rig(tmp_path, accounts=accounts):
        pass


def test_each_account_needs_its_lines_of_the_positions_board(made: Rig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="positions=196608 lines: expected 65536 for each of 4 accounts"):
        type(made.stage)(
            control=made.control, stats=made.stats, positions=made.positions, market_address=("127.0.0.1", 1), flow="none",
            order_address=("127.0.0.1", 0), username="A", password="B", symbols={}, accounts=(*OTHERS, Account("DELTA", "")),
        )  # fmt: skip
