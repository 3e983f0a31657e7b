"""OUCH 4.2 at both ends: every message against the tables, the gateway without an account query, the exchange and its tokens."""

import socket
import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.exchange.stage import Account
from engine.gateway.hot import state as gateway_state
from engine.gateway.hot.state import DOWN, NEXT_REF, STATE
from engine.gateway.ouch import bridge, v42, v50
from engine.gateway.ouch.hot import encode, translate
from engine.gateway.stage import open_connection, packet, templates
from engine.layout import BUY, SELL, TIF_DAY, TIF_IOC, pack_symbol
from engine.messages.hot.stamp import NOW
from engine.risk.hot import reasons as risk
from engine.wire import soupbintcp
from engine.wire.credentials import Credentials
from engine.wire.table import Message
from tests.exchange_rig import Rig, SoupClient, cancel, client_token, enter, mass_cancel, query, replace, rig
from tests.gateway_house import PX, SECOND, SPOKEN, House, brief, build_houses, login_accepted, sequenced
from tests.ouch42_tongue import REASONS, TIFS, TRADER, Tongue, our_token
from tests.running import Launcher

houses = pytest.fixture(lambda: (yield from build_houses("ouch42")))


@pytest.fixture
def house(houses: Callable[..., House]) -> House:
    return houses(reconnect_tries=5)


# Every message, both ways, against the tables.

u32 = st.integers(0, 2**32 - 1)
PRINTABLE = st.characters(min_codepoint=33, max_codepoint=126)


def fields_of(message: Message) -> st.SearchStrategy[dict[str, Any]]:
    """Fields of a message of 5.0 that 4.2 can say: prices of four bytes, the two times in force, the reasons that both know."""
    special: dict[str, Any] = {"px": u32, "tif": st.sampled_from(sorted(TIFS)), "appendage_length": st.just(0)}
    special["user_ref"] = special["orig_user_ref"] = st.integers(1, 99_999_999)
    special["client_id"] = st.text(PRINTABLE, max_size=4)
    if message is v50.REJECTED:
        special["reason"] = st.sampled_from(sorted(REASONS.values()))
    drawn = {
        field.name: st.text(PRINTABLE, max_size=field.length) if field.text else st.integers(0, 256**field.length - 1)
        for field in message.fields
        if field.name != "type"
    }
    return st.fixed_dictionaries(drawn | {name: found for name, found in special.items() if name in drawn})


def translated(way: Any, raw: bytes, named: dict[str, bytes], after: Message) -> bytes:
    """What the kernel makes of a message, with its names put in beside it."""
    target = np.full(200, 0xEE, np.uint8)
    translate.translate(way, np.int64(raw[0]), np.frombuffer(raw, np.uint8), np.int64(0), target, np.int64(7))
    for name, said in named.items():
        target[7 + after[name] :][: len(said)] = np.frombuffer(said, np.uint8)
    assert set(target[:7]) == set(target[7 + after.length :]) == {0xEE}, "it wrote beside its place"
    return bytes(target[7 : 7 + after.length])


@pytest.mark.parametrize("inbound", [False, True], ids=["reports", "orders"])
@pytest.mark.parametrize("letter", "SAUCDEBJPITOX")
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_message_goes_to_4_2_and_back(letter: str, inbound: bool, data: st.DataObject) -> None:
    old = (v50.INBOUND_BY_CODE if inbound else v50.OUTBOUND_BY_CODE).get(ord(letter))
    new = (v42.INBOUND_BY_CODE if inbound else v42.OUTBOUND_BY_CODE).get(ord(letter))
    if old is None or new is None:
        return
    fields = data.draw(fields_of(old))
    raw = old.encode(**fields)
    tongue = Tongue()
    expected = tongue.to_42(raw, inbound=inbound)
    if "firm" in new.offsets:
        # 5.0 has no such field: it rides in the client's own.
        expected = expected[: new["firm"]] + fields["client_id"].encode().ljust(4) + expected[new["firm"] + 4 :]
    names = {name: place for name, place in new.offsets.items() if name in ("token", "orig_token")}
    said = {name: expected[place : place + 14] for name, place in names.items()}
    to, back = (bridge.ORDERS_TO_42, bridge.ORDERS_TO_50) if inbound else (bridge.REPORTS_TO_42, bridge.REPORTS_TO_50)
    there = translated(to, raw, said, new)
    assert there == expected
    numbers = {name: raw[old[name] : old[name] + 4] for name in ("user_ref", "orig_user_ref") if name in old.offsets}
    again = old.decode(translated(back, there, numbers, old))
    kept = fields | ({} if "firm" in new.offsets or "client_id" not in fields else {"client_id": ""})
    assert again == kept


def test_both_tables_name_the_same_messages_and_the_plans_know_where_names_stand() -> None:
    for way, messages, by_code in bridge.PAIRS:
        for before in messages:
            plan, after = bridge.PLANS[way, before.code], by_code[before.code]
            assert (plan[bridge.FROM_BYTES], plan[bridge.TO_BYTES]) == (before.length, after.length)
            assert (plan[bridge.NAME_FROM] != 0) == ("token" in before.offsets or "user_ref" in before.offsets)
            assert (plan[bridge.ORIG_FROM] != 0) == ("orig_token" in before.offsets or "orig_user_ref" in before.offsets)


# The gateway's encoding, byte for byte.

side = st.sampled_from([BUY, SELL])
tif = st.sampled_from([TIF_DAY, TIF_IOC])
number = st.integers(1, 99_999_999)
strategy = st.integers(0, 63)
quantity = st.integers(1, v50.QUANTITY_MAX)
COMMON = {"display": "Y", "sweep": "N", "quantity_min": 0}
SECONDS = {TIF_DAY: 99_998, TIF_IOC: 0}


def framed(message: bytes) -> bytes:
    return struct.pack(">HB", 1 + len(message), soupbintcp.UNSEQUENCED) + message


@pytest.fixture(scope="module")
def wire() -> np.ndarray:
    """One buffer for all examples: what one order leaves behind must not show in the next."""
    return templates(Credentials.of("USER", "PASSWORD"), "SESSION", 1, TRADER, "ouch42")


@given(ref=number, side=side, qty=quantity, px=st.integers(1, 2**32 - 1), tif=tif, strategy=strategy)
@settings(max_examples=100, deadline=None)
def test_the_kernel_encodes_a_new_order_as_the_table_does(
    wire: np.ndarray, ref: int, side: int, qty: int, px: int, tif: int, strategy: int
) -> None:
    at = encode.OUTBOX_AT
    size = encode.encode_enter(wire, at, ref, side, qty, pack_symbol("MSFT"), px, tif, strategy)
    expected = v42.ENTER_ORDER.encode(
        token=our_token(ref, strategy), side=chr(side), quantity=qty, symbol="MSFT", px=px, tif=SECONDS[tif], firm="", capacity="P",
        cross="N", customer="", **COMMON,
    )  # fmt: skip
    assert bytes(wire[at:][:size]) == framed(expected)


@given(target=number, old=strategy, ref=number, qty=quantity, px=st.integers(1, 2**32 - 1), tif=tif, strategy=strategy)
@settings(max_examples=100, deadline=None)
def test_the_kernel_encodes_a_replace_as_the_table_does(
    wire: np.ndarray, target: int, old: int, ref: int, qty: int, px: int, tif: int, strategy: int
) -> None:
    at = encode.OUTBOX_AT
    size = encode.encode_replace(wire, at, target, old, ref, qty, px, tif, strategy)
    expected = v42.REPLACE_ORDER.encode(
        orig_token=our_token(target, old), token=our_token(ref, strategy), quantity=qty, px=px, tif=SECONDS[tif], **COMMON
    )
    assert bytes(wire[at:][:size]) == framed(expected)


@given(ref=number, strategy=strategy, qty=st.integers(0, v50.QUANTITY_MAX))
@settings(max_examples=50, deadline=None)
def test_the_kernel_encodes_a_cancel_as_the_table_does(wire: np.ndarray, ref: int, strategy: int, qty: int) -> None:
    at = encode.OUTBOX_AT
    size = encode.encode_cancel(wire, at, ref, strategy, qty)
    assert bytes(wire[at:][:size]) == framed(v42.CANCEL_ORDER.encode(token=our_token(ref, strategy), quantity=qty))


@pytest.mark.parametrize("trader", ["", "FIVES"])
def test_a_trader_that_no_token_can_hold_is_a_sentence(house: House, trader: str) -> None:
    with pytest.raises(ValueError, match=f"trader='{trader}': expected 1 to 4 characters with protocol=ouch42"):
        house.gateway(trader=trader)


def test_a_protocol_that_is_none_is_a_sentence(house: House) -> None:
    with pytest.raises(ValueError, match=r"protocol='ouch43': expected one of \['ouch42', 'ouch50'\]"):
        house.gateway(protocol="ouch43")


@pytest.mark.statement(11)
def test_every_order_of_4_2_names_its_trader_and_strategy_in_its_token(house: House) -> None:
    first = house.live()
    house.replace(first, qty=50)
    house.settle()
    tongue = SPOKEN["tongue"]
    assert tongue is not None
    assert [tongue.tokens[ref] for ref in (1, 2)] == ["0000000001DESK", "0000000002DESK"]
    # Its strategy stands before the number, whichever it is (the kernels' own encoding is held against the table above).
    table = house.stage.state.table
    assert [int(entry.strategy) for entry in table if entry.state != gateway_state.FREE] == [0, 0]


def test_a_price_that_four_bytes_do_not_hold_is_refused_and_not_cut(house: House) -> None:
    house.new(px=1 << 32)
    house.new(px=(1 << 32) + PX)
    assert house.settle() == []
    assert [report["reason"] for report in house.told()] == [risk.REASON_VENUE_PRICE] * 2
    house.new(px=(1 << 32) - 1)
    house.settle()
    assert [report["reason"] for report in house.told()] == [risk.REASON_COLLAR], "four bytes hold this one"


# A session without an account query.


def lose(house: House) -> None:
    house.venue.hang_up()
    house.turn_until(lambda: house.session[STATE] == DOWN, "the loss")


def test_no_account_query_is_ever_sent_and_a_heartbeat_before_the_head_ends_nothing(houses: Callable[..., House]) -> None:
    house = houses(login=False)
    house.probe(3)
    house.answer_login(1)
    house.venue.send(packet(soupbintcp.SERVER_HEARTBEAT) + sequenced(v50.SYSTEM_EVENT, event="S") + packet(soupbintcp.SERVER_HEARTBEAT))
    house.turn_until(lambda: house.stats.heartbeats_received == 2, "both heartbeats")
    assert house.control.session_up == 0
    house.venue.send(sequenced(v50.SYSTEM_EVENT, event="Q"))
    for _ in range(20):
        house.turn()
    assert house.control.session_up == 0, "what the venue had is here, but nothing says that it has no more"
    house.come_up()
    assert [said for said, _ in house.venue.heard if said != "heartbeat"] == []


def test_an_order_that_the_venue_never_spoke_of_counts_until_a_later_one_is_answered(houses: Callable[..., House]) -> None:
    house = houses(reconnect_tries=5, limits={"position_max": 250})
    live, lost = house.live(), house.new()
    house.settle()
    lose(house)
    house.reconnect()
    assert (house.state_of(live), house.state_of(lost)) == (gateway_state.LIVE, gateway_state.UNKNOWN)
    assert house.settle() == [("cancel order", {"user_ref": 2, "quantity": 0})], "and of the other, which it knows, none"
    assert (house.opens(), house.stats.unknown_orders, house.told()) == ((200, 0), 1, [])
    # An answer to what was sent before proves nothing.
    house.venue.say(v50.EXECUTED, user_ref=1, quantity=10, match=1)
    house.venue.say(v50.CANCELED, user_ref=1, quantity=10)
    house.settle()
    assert house.stats.unknown_orders == 1
    house.new(qty=61)
    later = house.new(qty=60)
    house.settle()
    assert house.stats.unknown_orders == 1, "nothing was answered yet"
    house.told()
    house.venue.say(v50.ACCEPTED, user_ref=3, quantity=60)
    house.settle()
    assert brief(house.told(), "order_id", "reason") == [("accepted", later, 0), ("rejected", lost, risk.REASON_NEVER_ARRIVED)]
    assert (house.opens(), house.stats.unknown_orders, house.stats.never_arrived) == ((140, 0), 0, 1)


@pytest.mark.parametrize("answer", ["accepted", "replaced", "rejected"])
def test_every_kind_of_answer_settles_and_a_chain_is_told_whole(house: House, answer: str) -> None:
    live = house.live()
    second = house.replace(live, qty=300)
    third = house.replace(second, qty=500)
    house.settle()
    lose(house)
    house.reconnect()
    assert {fields["user_ref"] for _, fields in house.settle()} == {2, 3}
    other = house.new(side=SELL)
    house.settle()
    if answer == "rejected":
        house.venue.say(v50.REJECTED, user_ref=4, reason=v50.REJECT_OTHER)
    else:
        house.venue.say(v50.ACCEPTED, user_ref=4, quantity=100)
    house.settle()
    told = {report["order_id"]: report["reason"] for report in house.told() if report["is"] == "rejected"}
    assert told.keys() - {other} == {second, third}
    assert told[second] == risk.REASON_NEVER_ARRIVED
    assert (house.opens()[0], house.stats.unknown_orders, house.state_of(live)) == (100, 0, gateway_state.LIVE)


def test_a_second_loss_asks_again_and_an_answer_of_before_settles_nothing(house: House) -> None:
    lost = house.new()
    house.settle()
    lose(house)
    house.reconnect()
    house.settle()
    house.new()
    house.settle()
    lose(house)
    # It is told what was sent after the cancel of the connection before, and the connection after that knows nothing of that cancel.
    house.reconnect(replay=sequenced(v50.ACCEPTED, user_ref=2, quantity=100))
    assert house.settle() == [("cancel order", {"user_ref": 1, "quantity": 0})]
    assert house.state_of(lost) == gateway_state.UNKNOWN


def test_a_late_word_about_one_lost_order_settles_no_other(house: House) -> None:
    """It was sent before the cancels, so that the venue read it proves nothing about what came after it."""
    first, second = house.new(), house.new(side=SELL)
    house.settle()
    lose(house)
    house.reconnect()
    house.settle()
    house.venue.say(v50.ACCEPTED, user_ref=1, quantity=100)
    house.settle()
    assert (house.state_of(first), house.state_of(second)) == (gateway_state.PENDING_CANCEL, gateway_state.UNKNOWN)
    assert (house.opens(), house.stats.unknown_orders, house.stats.never_arrived) == ((100, 100), 1, 0)
    # What was sent after them and is answered settles the other, and not the one that lives.
    house.new(qty=7)
    house.settle()
    house.venue.say(v50.ACCEPTED, user_ref=3, quantity=7)
    house.settle()
    assert (house.state_of(first), house.state_of(second)) == (gateway_state.PENDING_CANCEL, gateway_state.REJECTED)
    assert (house.opens(), house.stats.unknown_orders, house.stats.never_arrived) == ((107, 0), 0, 1)


def test_an_order_that_was_given_up_and_lives_after_all_counts_again(house: House) -> None:
    lost = house.new()
    house.settle()
    lose(house)
    house.reconnect()
    house.new(side=SELL)
    house.settle()
    house.venue.say(v50.ACCEPTED, user_ref=2, quantity=100)
    house.settle()
    assert (house.state_of(lost), house.opens()) == (gateway_state.REJECTED, (0, 100))
    house.venue.say(v50.ACCEPTED, user_ref=1, quantity=100)
    house.settle()
    assert (house.opens(), house.stats.open_orders) == ((100, 100), 2)
    house.venue.say(v50.EXECUTED, user_ref=1, quantity=100, match=5)
    house.settle()
    assert (house.opens(), house.line()["position"]) == ((0, 100), 100)


def test_a_restart_takes_over_by_token_and_goes_on_behind_the_highest(houses: Callable[..., House]) -> None:
    house = houses(login=False)
    tongue = SPOKEN["tongue"]
    assert tongue is not None
    tongue.tokens.update({5: our_token(5, 7), 9: our_token(9, 12), 11: our_token(11, 3)})
    replay = (
        sequenced(v50.ACCEPTED, user_ref=5, quantity=300),
        sequenced(v50.EXECUTED, user_ref=5, quantity=100, match=1),
        sequenced(v50.REPLACED, orig_user_ref=5, user_ref=9, quantity=150),
        sequenced(v50.REJECTED, user_ref=11, reason=v50.REJECT_OTHER),
    )
    house.probe(5)
    house.answer_login(1)
    house.venue.send(b"".join(replay) + packet(soupbintcp.SERVER_HEARTBEAT))
    cancelled = house.heard("cancel order")
    assert (cancelled["user_ref"], tongue.token(9)) == (9, our_token(9, 12)), "its token, with the strategy that it had"
    assert (house.line()["position"], house.opens(), int(house.stats.adopted)) == (100, (150, 0), 2)
    assert house.control.session_up == 0
    house.venue.say(v50.CANCELED, user_ref=9, quantity=150)
    house.turn_until(lambda: bool(house.control.session_up), "the session")
    assert house.session[NEXT_REF] == 12
    house.pings = int(house.stats.heartbeats_received)
    house.new()
    assert [fields["user_ref"] for _, fields in house.settle()] == [12]


@pytest.mark.parametrize(
    "token",
    ["0000000001OTHE", "0100000001DESK", "00 0000001DESK", "00x0000001DESK", "0000000000DESK", "", "..............", "-100000001DESK"],
)
def test_a_token_that_is_not_ours_is_counted_and_changes_nothing(house: House, token: str) -> None:
    house.live()
    before = (house.opens(), house.line(), house.session[NEXT_REF])
    for message, fields in (
        (v42.EXECUTED, {"quantity": 10, "px": PX, "liquidity": "A", "match": 1}),
        (v42.CANCELED, {"quantity": 100, "reason": "U"}),
    ):
        house.venue.send(packet(soupbintcp.SEQUENCED, message.encode(timestamp=1, token=token, **fields)))
    house.settle()
    assert (house.opens(), house.line(), house.session[NEXT_REF]) == before
    assert (int(house.stats.unknown_reports), int(house.stats.unknown_executions)) == (2, 1)
    assert house.told() == []


def test_what_only_4_2_has_is_counted_and_traded_shares_are_a_mismatch(house: House) -> None:
    for letter, unknown in (("M", 0), ("G", 1), ("F", 2), ("Q", 2), ("\x00", 2), ("\xff", 2)):
        house.venue.send(packet(soupbintcp.SEQUENCED, letter.encode("latin1") + bytes(60)))
        house.settle()
        assert house.stats.unknown_executions == unknown
    assert house.stats.unknown_reports == 6


REPLIES = (
    (v50.ACCEPTED, {"user_ref": 1, "quantity": 100}),
    (v50.EXECUTED, {"user_ref": 1, "quantity": 40, "match": 1}),
    (v50.REPLACED, {"orig_user_ref": 1, "user_ref": 2, "quantity": 260}),
    (v50.CANCELED, {"user_ref": 2, "quantity": 10}),
)


def test_a_loss_after_every_byte_of_the_replay(houses: Callable[..., House]) -> None:
    """Each connection breaks one byte later than the one before; each login asks for the first packet that was not whole."""

    def ask(house: House) -> list[bytes]:
        house.replace(house.new(qty=100), qty=300)
        house.settle()
        return [sequenced(message, **fields) for message, fields in REPLIES]

    house = houses()
    house.venue.send(b"".join(ask(house)))
    house.settle()
    expected = house.told(), house.line()
    house = houses(reconnect_tries=10_000, reconnect_ms=1, reconnect_ms_max=1)
    said = ask(house)
    lose(house)
    ends = [sum(map(len, said[: count + 1])) for count in range(len(said))]
    for cut in range(1, ends[-1] + 1):
        whole = sum(1 for end in ends if end < cut)
        house.meet()
        house.probe(1 + len(said))
        assert house.heard("login")["sequence"].strip() == str(1 + whole)
        house.venue.send(login_accepted(1 + whole) + b"".join(said)[ends[whole - 1] if whole else 0 : cut])
        lose(house)
    house.reconnect()
    strip = {"origin_tsc": 0, "age_tsc": 0, "sequence": 0}
    assert [report | strip for report in house.told()] == [report | strip for report in expected[0]]
    assert (house.line(), int(house.stats.unknown_orders)) == (expected[1], 0)
    assert house.stats.malformed == sum(1 for cut in range(1, ends[-1] + 1) if cut not in ends)


# The exchange.


def client_of(made: Rig, sequence: int = 1) -> SoupClient:
    client = SoupClient(made)
    assert client.login(sequence=sequence)[0] == soupbintcp.LOGIN_ACCEPTED.code
    return client


def enter_42(token: str, side: str = "B", qty: int = 100, px: int = 1_500_000, **fields: Any) -> bytes:
    usual = {"symbol": "AAPL", "tif": 99_998, "firm": "FIRM", "display": "N", "capacity": "A", "sweep": "Y", "quantity_min": 0}
    return v42.ENTER_ORDER.encode(
        **{"token": token, "side": side, "quantity": qty, "px": px, "cross": "N", "customer": "R"} | usual | fields
    )


def raw_reports(client: SoupClient, count: int) -> list[bytes]:
    client.until(lambda: sum(kind == soupbintcp.SEQUENCED for kind, _ in client.inbox) >= count, f"{count} reports")
    taken, client.inbox = client.inbox, []
    return [payload for kind, payload in taken if kind == soupbintcp.SEQUENCED]


def said(message: Message, raw: bytes) -> dict[str, Any]:
    return {name: value for name, value in message.decode(raw).items() if name not in ("timestamp", "order_ref", "match")}


def test_every_report_is_as_the_table_has_it_and_comes_again_byte_for_byte(tmp_path: Path) -> None:
    with rig(tmp_path, protocol="ouch42", self_trade="cancel_oldest", accounts=(Account("BETA", "TWO"),)) as made:
        made.run()
        client, other = client_of(made), SoupClient(made)
        other.login("BETA", "TWO")
        client.tongue = None
        client.order(enter_42("first ~token.", "S", 300))
        client.order(v42.REPLACE_ORDER.encode(
            orig_token="first ~token.", token="2", quantity=250, px=1_500_100, tif=99_998, display="Y", sweep="N", quantity_min=0
        ))  # fmt: skip
        raw_before = raw_reports(client, 2)
        other.order(enter(1, "B", 40, 1_500_100))
        other.reports(2)
        client.order(v42.CANCEL_ORDER.encode(token="2", quantity=100))
        client.order(enter_42("none listed", symbol="NONE"))
        client.order(enter_42("3", "B", 10, 1_500_100, tif=0))
        reports = raw_before + raw_reports(client, 6)
        common = {"side": "S", "symbol": "AAPL", "tif": 99_998, "firm": "FIRM", "capacity": "A", "quantity_min": 0, "cross": "N"}
        common |= {"state": "L", "bbo_weight": ""}
        assert said(v42.ACCEPTED, reports[0]) == common | {
            "token": "first ~token.", "quantity": 300, "px": 1_500_000, "display": "N", "sweep": "Y",
        }  # fmt: skip
        assert said(v42.REPLACED, reports[1]) == common | {
            "token": "2", "orig_token": "first ~token.", "quantity": 250, "px": 1_500_100, "display": "Y", "sweep": "N",
        }  # fmt: skip
        assert said(v42.EXECUTED, reports[2]) == {"token": "2", "quantity": 40, "px": 1_500_100, "liquidity": "A"}
        assert said(v42.CANCELED, reports[3]) == {"token": "2", "quantity": 150, "reason": "U"}
        assert said(v42.REJECTED, reports[4]) == {"token": "none listed", "reason": "S"}
        assert said(v42.ACCEPTED, reports[5])["tif"] == 0
        prevented = said(v42.AIQ_CANCELED, reports[6])
        assert (prevented["token"], prevented["reason"], prevented["quantity_prevented"]) == ("2", "Q", 10)
        assert said(v42.CANCELED, reports[7]) == {"token": "3", "quantity": 10, "reason": "I"}
        again = client_of(made)
        assert raw_reports(again, 8) == reports


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"symbol": "NONE"}, "S"), ({"px": 2_000_000_000}, "X"), ({"px": 0}, "X"), ({"qty": 0}, "Z"), ({"qty": 1_000_000}, "Z"),
        ({"side": "?"}, "O"), ({"tif": 5}, "O"), ({"tif": 99_999}, "O"), ({"quantity_min": 1}, "O"), ({"cross": "O"}, "O"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_rejected_with_a_letter(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    with rig(tmp_path, protocol="ouch42") as made:
        client = client_of(made)
        client.order(enter_42("A", **fields))
        assert said(v42.REJECTED, raw_reports(client, 1)[0]) == {"token": "A", "reason": reason}


@pytest.mark.parametrize(
    "raw",
    [mass_cancel(9), query(), query()[:1], b"M" + bytes(19), b"\0", b"", enter_42("A")[:-1], enter_42("A") + b" ", enter(1, "B", 1, 1)],
)
def test_what_4_2_has_not_is_malformed(tmp_path: Path, raw: bytes) -> None:
    with rig(tmp_path, protocol="ouch42") as made:
        client = client_of(made)
        client.tongue = None
        client.order(raw)
        client.wait_closed()
        assert (made.count("malformed"), made.count("reports")) == (1, 0)


def test_a_token_is_used_once_and_unknown_ones_are_ignored(tmp_path: Path) -> None:
    with rig(tmp_path, protocol="ouch42") as made:
        client = client_of(made)
        for raw in (enter(1, "B", 100, 1_000_000), enter(1, "B", 200, 1_000_000), cancel(8), replace(8, 9, 100, 1_000_000)):
            client.order(raw)
        client.order(replace(1, 1, 100, 1_000_000))
        client.order(enter(10, "B", 300, 1_000_000))
        reports = client.reports(2)
        assert [(report["type"], report["user_ref"], report["quantity"]) for report in reports] == [("A", 1, 100), ("A", 10, 300)]
        assert made.stage.ignored == 3
        assert made.stage.open_orders().keys() == {1, 10}


def test_the_oldest_tokens_are_forgotten_but_never_one_of_a_live_order(tmp_path: Path) -> None:
    """Many more orders than there are places, beside one that rests throughout and can be cancelled by its token at last."""
    with rig(tmp_path, protocol="ouch42", client_orders_max=16) as made:
        client = client_of(made)
        client.order(enter(5, "B", 100, 1_000_000))
        assert client.reports(1)[0]["user_ref"] == 5
        for user_ref in range(100, 180):
            client.order(enter(user_ref, "B", 1, 1_000_000))
            client.order(cancel(user_ref))
            assert [(report["type"], report["user_ref"]) for report in client.reports(2)] == [("A", user_ref), ("C", user_ref)]
        client.order(cancel(5))
        assert [(report["type"], report["user_ref"]) for report in client.reports(1)] == [("C", 5)]
        client.order(enter(179, "B", 1, 1_000_000))
        client.order(enter(100, "B", 1, 1_000_000))
        assert [(report["type"], report["user_ref"]) for report in client.reports(1)] == [("A", 100)], (
            "the last one is known, the first is not"
        )
        assert client_token(100) == client.tongue.token(100)  # type: ignore[union-attr]


# Both of them together.


def test_the_gateway_and_the_exchange_agree_over_a_loss(houses: Callable[..., House], tmp_path: Path) -> None:
    with rig(tmp_path, protocol="ouch42", accounts=(Account("BETA", "TWO"),)) as made:
        port = made.stage.order_port
        house = houses(login=False, reconnect_tries=5, reconnect_ms=1, connector=lambda: open_connection("127.0.0.1", port, 15_000))

        def together(reached: Callable[[], bool], what: str) -> None:
            for _ in range(5_000):
                if reached():
                    return
                house.turn()
                made.step(after_ns=SECOND // 100)
                house.clock.words[NOW] += SECOND // 100
            raise AssertionError(f"never came: {what}")

        def agree() -> None:
            line, ours = made.positions.records[1], house.line()
            names = ("position", "cash", "bought", "sold", "open_buy", "open_sell", "fills")
            assert {name: int(line[name]) for name in names} == {name: ours[name] for name in names}
            alive = {int(entry.user_ref): int(entry.open) for entry in house.stage.state.table if 0 < entry.state < gateway_state.ENDED}
            assert alive == {ref: order.qty for ref, order in made.stage.open_orders().items()}

        together(lambda: bool(house.control.session_up), "the session")
        first = house.new(qty=300)
        house.replace(first, qty=500)
        house.new(side=SELL, px=PX + 100)
        together(lambda: house.stats.accepted == 2 and house.stats.replaced == 1, "what was asked")
        other = SoupClient(made)
        other.login("BETA", "TWO")
        other.order(enter(1, "S", 120, PX))
        other.reports(2)
        together(lambda: house.stats.executed == 1, "the trade")
        agree()
        assert (house.line()["position"], house.opens()) == (120, (380, 100))
        assert house.stage.socket is not None
        house.stage.socket.shutdown(socket.SHUT_RDWR)
        together(lambda: house.stats.reconciliations == 2, "the session again")
        agree()
        assert (house.line()["position"], house.opens(), house.stats.unknown_orders) == (120, (0, 0), 0)
        house.new(qty=10)
        together(lambda: house.stats.accepted == 3, "an order on the new session")
        agree()
        assert made.stage.open_orders().keys() == {4}
        assert (house.stats.malformed, made.count("malformed"), house.stats.unknown_reports) == (0, 0, 0)


# Both of them, as real processes.


def test_a_run_on_ouch_4_2_loses_nothing_and_agrees_with_the_exchange(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path, f"test-{uuid.uuid4().hex[:12]}")
    launcher.replace('protocol = "ouch50"', 'protocol = "ouch42"')
    launcher.replace('trader = "TICKPATH"', 'trader = "DESK"')
    report, finished = launcher.trade("--seconds", "3")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (report["failures"], report["lost"], report["malformed"], report["positions_agree"]) == ([], 0, 0, True), report
    counted = report["counters"]
    assert (
        counted["gateway"]["sent"] == counted["exchange"]["orders"] + counted["exchange"]["replaces"] + counted["exchange"]["cancels"] > 0
    )
    assert counted["gateway"]["executed"] == counted["exchange"]["client_executions"] == report["fills"] > 0
    assert counted["gateway"]["unknown_reports"] == counted["gateway"]["unknown_orders"] == 0
    assert launcher.segments() == []
