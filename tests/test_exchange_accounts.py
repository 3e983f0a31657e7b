"""Several accounts at the simulated exchange: who is let in as whom, what each is told, and whose the positions are."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY

import pytest

from engine.book.book import check_invariants
from engine.exchange.books import Execution, OpenOrder, Resting
from engine.exchange.stage import Account
from engine.gateway.ouch import v50 as ouch
from engine.layout import INSTRUMENTS_MAX, PHASE_DRAINING
from engine.wire import soupbintcp
from tests.exchange_rig import Rig, SoupClient, cancel, disable, enter, mass_cancel, open_orders, packet, query, replace, rig

SECOND = 1_000_000_000
OTHERS = (Account("BETA", "TWO"), Account("GAMMA", "THREE"))


@pytest.fixture
def protocol() -> str:
    return "ouch50"


# Tests that ask nothing which 4.2 has not.
both = pytest.mark.parametrize("protocol", ["ouch50", "ouch42"])


@pytest.fixture
def made(tmp_path: Path, protocol: str) -> Iterator[Rig]:
    """An exchange with three accounts: TICK, BETA, which always speaks 5.0, and GAMMA."""
    others = (OTHERS[0], OTHERS[1]._replace(protocol=protocol))
    with rig(tmp_path, protocol=protocol, accounts=others) as exchange:
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


@both
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
    if third.tongue is None:
        assert [(report["type"], report["user_ref"]) for report in third.reports(1)] == [("J", 2)], "another account's order is not there"
    else:
        third.until(lambda: made.stage.ignored == 1, "4.2 ignores it")
    assert [(order["qty"], order["user_ref"]) for order in open_orders(made)] == [(100, 1)]
    # The same from the stage's own account of it.
    stage = made.stage
    assert stage.open_orders(0) == {1: OpenOrder("AAPL", "S", 1_500_000, 100, 200)}
    assert stage.open_orders(1) == stage.open_orders(2) == {}
    assert stage.book_of("AAPL") == [Resting("S", 1_500_000, 100, 1 << 40, 0, 1)]
    assert stage.executions(0) == [Execution(1, 200, 1_500_000, "A", sold["match"])]
    assert stage.executions(1) == [Execution(1, 200, 1_500_000, "R", sold["match"])]
    with pytest.raises(KeyError, match="NONE"):
        stage.book_of("NONE")


def test_a_password_of_another_account_lets_nobody_in(made: Rig) -> None:
    for username, password in (("BETA", "PATH"), ("TICK", "TWO"), ("GAMMA", "TWO")):
        assert SoupClient(made).login(username, password) == (soupbintcp.LOGIN_REJECTED.code, b"A")
    assert made.count("logins") == 0


@both
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


@both
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


@both
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


@both
def test_the_session_ends_for_all(made: Rig) -> None:
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


# What concerns an account as a whole.


def test_the_account_query_is_answered_behind_everything_else(made: Rig) -> None:
    client, other = logged_in(made, 0), logged_in(made, 1)
    client.order(query())
    assert client.reports(1) == [{"type": "Q", "timestamp": ANY, "next_user_ref": 1}]
    other.order(enter(1, "S", 100, 1_500_000))
    other.reports(1)
    client.order(enter(7, "B", 300, 1_500_000))
    client.order(enter(7, "B", 300, 1_500_000))
    client.order(cancel(7))
    client.order(query()[:1])
    accepted, executed, cancelled, answer = client.reports(4)
    assert [report["type"] for report in (accepted, executed, cancelled)] == ["A", "E", "C"]
    assert answer["next_user_ref"] == 8
    back = logged_in(made, 0, sequence=1)
    assert [report["type"] for report in back.reports(5)] == ["Q", "A", "E", "C", "Q"], "it is told again like everything else"
    other.order(query())
    assert [report.get("next_user_ref") for report in other.reports(2)] == [None, 2]


@pytest.mark.parametrize("raw", [query() + b"\0", query()[:2], mass_cancel(9)[:-1], mass_cancel(9) + b"!", disable(9)[:-2]])
def test_a_request_that_is_not_whole_is_malformed(made: Rig, raw: bytes) -> None:
    client = logged_in(made, 0)
    client.order(raw)
    client.wait_closed()
    assert made.count("malformed") == 1


@pytest.mark.parametrize(("symbol", "gone"), [("AAPL", [1, 3, 5]), ("MSFT", [2, 4]), ("", [1, 2, 3, 4, 5]), ("NONE", [])])
def test_a_mass_cancel_is_of_a_symbol_or_of_everything_and_of_nobody_elses_orders(made: Rig, symbol: str, gone: list[int]) -> None:
    client, other = logged_in(made, 0), logged_in(made, 1)
    for number in range(1, 6):
        for who in (client, other):
            who.order(enter(number, "B", 100, 1_000_000 + 100 * number, symbol="AAPL" if number % 2 else "MSFT"))
            who.reports(1)
    client.order(mass_cancel(6, symbol))
    client.order(cancel(5))
    client.order(query())
    answer = client.reports(1)[0]
    assert (answer["type"], answer["user_ref"], answer["firm"], answer["symbol"]) == ("X", 6, "HERE", symbol)
    told = client.reports(len({*gone, 5}) + 1)
    assert sorted(report["user_ref"] for report in told if report["type"] == "C") == sorted({*gone, 5})
    assert {report["reason"] for report in told if report["type"] == "C"} == {"U"}
    assert told[-1]["next_user_ref"] == 7, "its user_ref counts"
    assert made.count("open_orders") == 5 + 5 - len({*gone, 5})
    assert made.count("mass_cancels") == 1
    client.order(mass_cancel(6))
    client.order(query())
    assert [report["type"] for report in client.reports(1)] == ["Q"], "a user_ref that is not above the last is ignored"
    assert made.stage.ignored == 1


def test_a_mass_cancel_of_many_is_done_before_what_is_said_next(made: Rig) -> None:
    """More than one turn's worth; meanwhile another client trades with some of them."""
    client, other = logged_in(made, 0), logged_in(made, 1)
    for number in range(1, 1_501):
        client.order(enter(number, "B", 100, 1_000_000 + 100 * (number % 50), symbol="MSFT" if number % 3 == 0 else "AAPL"))
    client.reports(1_500)
    client.order(mass_cancel(1_501, "AAPL"))
    client.order(enter(1_502, "B", 100, 900_000))
    for number in range(1, 41):
        other.order(enter(number, "S", 700, 1_000_000))
    other.until(lambda: made.count("orders") == 1_541, "everybody's orders")
    reports = client.reports(2 + 1_000)
    assert reports[0]["type"] == "X"
    assert reports[-1]["type"] == "A", "what was said next is done last"
    assert {report["user_ref"] for report in reports[1:-1]} == {number for number in range(1, 1_501) if number % 3}
    assert {report["type"] for report in reports[1:-1]} == {"C", "E"} or made.count("client_executions") == 0
    kept = {order["user_ref"] for order in open_orders(made) if order["side"] == "B"}
    assert kept == {number for number in range(1, 1_501) if number % 3 == 0} | {1_502}


def test_while_order_entry_is_disabled_orders_are_rejected_and_cancels_pass(made: Rig) -> None:
    client, other = logged_in(made, 0), logged_in(made, 1)
    client.order(enter(1, "B", 100, 1_000_000))
    client.order(disable(2))
    client.order(enter(3, "B", 100, 1_000_000))
    client.order(replace(1, 4, 100, 1_000_100))
    client.order(cancel(1))
    other.order(enter(1, "B", 100, 1_000_000))
    assert [(report["type"], report["user_ref"]) for report in client.reports(5)] == [("A", 1), ("G", 2), ("J", 3), ("J", 4), ("C", 1)]
    assert other.reports(1)[0]["type"] == "A", "another account's orders"
    leaver = client.rig
    client.socket.close()
    back = logged_in(leaver, 0, sequence=6)
    back.order(enter(5, "B", 100, 1_000_000))
    back.order(disable(6, enable=True))
    back.order(enter(7, "B", 100, 1_000_000))
    assert [(report["type"], report["user_ref"]) for report in back.reports(3)] == [("J", 5), ("K", 6), ("A", 7)]


def test_an_account_may_keep_its_orders_when_its_connection_ends(tmp_path: Path) -> None:
    with rig(tmp_path, cancel_on_disconnect=False, accounts=OTHERS) as made:
        keeper, other = logged_in(made, 0), logged_in(made, 1)
        for client in (keeper, other):
            client.order(enter(1, "B", 100, 1_000_000))
            client.reports(1)
        keeper.socket.close()
        other.socket.close()
        third = logged_in(made, 2)
        third.order(enter(1, "S", 50, 1_000_000))
        assert [report["type"] for report in third.reports(2)] == ["A", "E"]
        assert [order["qty"] for order in open_orders(made)] == [50]
        back = logged_in(made, 0, sequence=2)
        assert [(report["type"], report["quantity"]) for report in back.reports(1)] == [("E", 50)]
        back.order(cancel(1))
        assert [report["type"] for report in back.reports(1)] == ["C"]


# Orders that meet their own owner's.

PREVENTIONS = {
    # The newer order's account asks for it: (what the older order, then the newer one is told), what is left open.
    "trade": (["E"], ["A", "E"], [200]),
    "cancel_newest": ([], ["A", "D"], [300]),
    "cancel_oldest": (["D"], ["A"], [100]),
    "cancel_both": (["D"], ["A", "D"], []),
}


@pytest.mark.parametrize("mode", PREVENTIONS)
@pytest.mark.parametrize("maker", [0, 1], ids=["one account", "two accounts of a firm"])
def test_what_happens_when_an_order_meets_its_owners(tmp_path: Path, mode: str, maker: int) -> None:
    of_firm = Account("BETA", "TWO", firm="F")
    with rig(tmp_path, self_trade=mode, firm="F", accounts=(of_firm, Account("GAMMA", "THREE", firm="G"))) as made:
        clients = [logged_in(made, account) for account in range(3)]
        older, newer = clients[maker], clients[0]
        older.order(enter(1, "S", 300, 1_000_000))
        assert older.reports(1)[0]["type"] == "A"
        newer.order(enter(2, "B", 100, 1_000_100))
        to_older, to_newer, left = PREVENTIONS[mode]
        told = newer.reports(len(to_newer) + (len(to_older) if maker == 0 else 0))
        if maker == 1:
            told += older.reports(len(to_older))
        assert sorted(report["type"] for report in told) == sorted(to_older + to_newer)
        for report in told:
            if report["type"] == "D":
                assert (report["reason"], report["quantity_prevented"], report["px"]) == ("Q", 100, 1_000_000)
                assert (report["user_ref"], report["quantity"], report["liquidity"]) in ((1, 300, "A"), (2, 100, "R"))
        assert [order["qty"] for order in open_orders(made)] == left
        assert made.count("open_orders") == len(left)
        assert made.count("self_trades_prevented") == (mode != "trade")
        check_invariants(made.stage.state.venue.book)


def test_an_order_goes_on_behind_its_owners_that_was_cancelled(tmp_path: Path) -> None:
    """Its own order stands first, one of a stranger behind it, and one of another firm at the next price."""
    with rig(tmp_path, self_trade="cancel_oldest", accounts=OTHERS) as made:
        client, second, third = (logged_in(made, account) for account in range(3))
        for number, (who, px) in enumerate(((client, 100), (second, 100), (client, 200), (third, 200)), 1):
            who.order(enter(number, "S", 50, px))
            who.reports(1)
        client.order(enter(9, "B", 120, 300))
        told = client.reports(5)
        assert [(report["type"], report["user_ref"]) for report in told] == [("A", 9), ("D", 1), ("E", 9), ("D", 3), ("E", 9)]
        assert [(order["side"], order["qty"]) for order in open_orders(made)] == [("B", 20)]
        assert line(made, 0)[:2] == (100, 100)
        assert line(made, 0)[4:] == (20, 0, 2)
