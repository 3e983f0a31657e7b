"""OUCH 5.0 and SoupBinTCP as tables: the specification's lengths, real captures, round trips, and the kernels' encoding byte for byte."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.gateway.ouch import v42
from engine.gateway.ouch import v50 as ouch
from engine.gateway.ouch.hot import encode
from engine.gateway.stage import templates
from engine.layout import BUY, SELL, TIF_DAY, TIF_IOC, pack_symbol
from engine.wire import soupbintcp
from engine.wire.credentials import Credentials
from engine.wire.table import Message

CAPTURES = Path(__file__).parents[2] / "shared" / "data" / "ouch"
needs_captures = pytest.mark.skipif(
    not CAPTURES.is_dir(), reason=f"real captures are not there: {CAPTURES.name}/ of the shared data folder"
)
DAY_NS = 86_400 * 10**9

# Fixed parts, as the specification counts them, without an appendage.
LENGTHS = {
    ouch.ENTER_ORDER: 47,
    ouch.REPLACE_ORDER: 40,
    ouch.CANCEL_ORDER: 9,
    ouch.MASS_CANCEL: 19,
    ouch.DISABLE_ENTRY: 11,
    ouch.ENABLE_ENTRY: 11,
    ouch.ACCOUNT_QUERY: 3,
    ouch.SYSTEM_EVENT: 10,
    ouch.ACCEPTED: 64,
    ouch.REPLACED: 68,
    ouch.CANCELED: 18,
    ouch.EXECUTED: 36,
    ouch.BROKEN: 36,
    ouch.REJECTED: 29,
    ouch.AIQ_CANCELED: 31,
    ouch.CANCEL_PENDING_NOTICE: 13,
    ouch.CANCEL_REJECTED: 13,
    ouch.PRIORITY_UPDATE: 30,
    ouch.RESTATED: 16,
    ouch.MASS_CANCEL_RESPONSE: 27,
    ouch.DISABLE_ENTRY_RESPONSE: 19,
    ouch.ENABLE_ENTRY_RESPONSE: 19,
    ouch.ACCOUNT_QUERY_RESPONSE: 13,
    soupbintcp.LOGIN_REQUEST: 47,
    soupbintcp.LOGIN_ACCEPTED: 31,
    soupbintcp.LOGIN_REJECTED: 2,
}

LENGTHS_42 = {
    v42.ENTER_ORDER: 49,
    v42.REPLACE_ORDER: 47,
    v42.CANCEL_ORDER: 19,
    v42.SYSTEM_EVENT: 10,
    v42.ACCEPTED: 66,
    v42.REPLACED: 80,
    v42.CANCELED: 28,
    v42.AIQ_CANCELED: 37,
    v42.EXECUTED: 40,
    v42.BROKEN: 32,
    v42.REJECTED: 24,
    v42.CANCEL_PENDING_NOTICE: 23,
    v42.CANCEL_REJECTED: 23,
    v42.PRIORITY_UPDATE: 36,
}


@pytest.mark.parametrize(("message", "length"), LENGTHS_42.items(), ids=[message.name for message in LENGTHS_42])
def test_lengths_are_those_of_version_4_2(message: Message, length: int) -> None:
    assert message.length == length


def test_the_tables_of_version_4_2_are_complete() -> None:
    assert set(v42.INBOUND) | set(v42.OUTBOUND) == set(LENGTHS_42)
    assert len(v42.INBOUND_BY_CODE) == len(v42.INBOUND)
    assert len(v42.OUTBOUND_BY_CODE) == len(v42.OUTBOUND)


@pytest.mark.parametrize(("message", "length"), LENGTHS.items(), ids=[message.name for message in LENGTHS])
def test_lengths_are_the_specifications(message: Message, length: int) -> None:
    assert message.length == length


def test_the_tables_are_complete() -> None:
    assert set(ouch.INBOUND) | set(ouch.OUTBOUND) == set(LENGTHS) - {m for m in LENGTHS if m.name.startswith("login")}
    assert len(ouch.INBOUND_BY_CODE) == len(ouch.INBOUND)
    assert len(ouch.OUTBOUND_BY_CODE) == len(ouch.OUTBOUND)


def payloads(path: Path) -> list[bytes]:
    """The TCP payload of each frame of a capture. The captures carry trailers behind the packet, so the IP header's length rules."""
    raw = path.read_bytes()
    order = "<" if raw[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    at, found = 24, []
    while at < len(raw):
        captured = struct.unpack_from(f"{order}I", raw, at + 8)[0]
        frame = raw[at + 16 : at + 16 + captured]
        ip = 18 if frame[12:14] == b"\x81\x00" else 14
        end = ip + int.from_bytes(frame[ip + 2 : ip + 4], "big")
        tcp = ip + 4 * (frame[ip] & 15)
        found.append(frame[tcp + 4 * (frame[tcp + 12] >> 4) : end])
        at += 16 + captured
    return found


def packets(stream: bytes) -> list[tuple[str, bytes]]:
    """SoupBinTCP packets as (type, payload). The stream must end with one."""
    found = []
    while stream:
        length = int.from_bytes(stream[:2], "big")
        assert len(stream) >= 2 + length >= 3
        found.append((chr(stream[2]), stream[3 : 2 + length]))
        stream = stream[2 + length :]
    return found


def captured(name: str) -> list[tuple[str, bytes]]:
    return [found for payload in payloads(CAPTURES / name) for found in packets(payload)]


def decoded(message: Message, raw: bytes) -> tuple[dict[str, Any], list[tuple[int, bytes]]]:
    """The fields of a captured message, and the options of its appendage. Encoding the fields must give the same bytes back."""
    fixed = raw[: message.length]
    fields = message.decode(fixed)
    assert message.encode(**fields) == fixed
    options, rest = [], raw[message.length :]
    assert len(rest) == fields.get("appendage_length", 0)
    while rest:
        options.append((rest[1], rest[2 : 1 + rest[0]]))
        rest = rest[1 + rest[0] :]
    return fields, options


@needs_captures
def test_a_real_enter_order() -> None:
    ((kind, raw),) = captured("EnterOrderMessage.pcap")
    assert kind == chr(soupbintcp.UNSEQUENCED)
    fields, options = decoded(ouch.ENTER_ORDER, raw)
    assert fields["side"] in "BSTE"
    assert fields["symbol"].isalpha()
    assert 0 < fields["quantity"] <= ouch.QUANTITY_MAX
    assert 0 < fields["px"] < 2_000_000_000
    assert ord(fields["tif"]) == ouch.TIF_DAY
    assert [tag for tag, _ in options] == [2]  # the firm


@needs_captures
def test_a_real_cancel() -> None:
    ((kind, raw),) = captured("CancelOrderMessage.pcap")
    assert kind == chr(soupbintcp.UNSEQUENCED)
    fields, options = decoded(ouch.CANCEL_ORDER, raw)
    assert fields["quantity"] == 0
    assert options == []


@needs_captures
def test_a_real_order_is_accepted_and_cancelled() -> None:
    ((accepted_kind, accepted_raw),) = captured("OrderAcceptedMessage.pcap")
    ((canceled_kind, canceled_raw),) = captured("CanceledMessage.pcap")
    assert accepted_kind == canceled_kind == chr(soupbintcp.SEQUENCED)
    accepted, options = decoded(ouch.ACCEPTED, accepted_raw)
    canceled, none = decoded(ouch.CANCELED, canceled_raw)
    assert ord(accepted["state"]) == ouch.STATE_LIVE
    assert [tag for tag, _ in options] == [2, 18]  # the firm, and what it was to the best bid and offer
    assert none == []
    assert accepted["user_ref"] == canceled["user_ref"]
    assert accepted["quantity"] == canceled["quantity"]
    assert 0 < accepted["timestamp"] < canceled["timestamp"] < DAY_NS
    assert ord(canceled["reason"]) == ouch.CANCEL_BY_USER


@needs_captures
def test_real_heartbeats() -> None:
    assert captured("ClientHeartbeatPacket.pcap") == [(chr(soupbintcp.CLIENT_HEARTBEAT), b"")]
    assert captured("ServerHeartbeatPacket.pcap") == [(chr(soupbintcp.SERVER_HEARTBEAT), b"")]


def values(message: Message) -> st.SearchStrategy[dict[str, Any]]:
    printable = st.characters(min_codepoint=33, max_codepoint=126)
    return st.fixed_dictionaries(
        {
            field.name: st.text(printable, max_size=field.length) if field.text else st.integers(0, 256**field.length - 1)
            for field in message.fields
            if field.name != "type"
        }
    )


@pytest.mark.parametrize("message", [*LENGTHS, *LENGTHS_42], ids=lambda message: message.name)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_message_round_trips(message: Message, data: st.DataObject) -> None:
    fields = data.draw(values(message))
    raw = message.encode(**fields)
    assert len(raw) == message.length
    assert raw[0] == message.code
    assert message.decode(raw) == fields


u32 = st.integers(0, 2**32 - 1)
quantity = st.integers(1, ouch.QUANTITY_MAX)
px = st.integers(1, 2**40)
side = st.sampled_from([BUY, SELL])
tif = st.sampled_from([TIF_DAY, TIF_IOC])
strategy = st.integers(0, 63)
symbol = st.text(st.characters(min_codepoint=65, max_codepoint=90), min_size=1, max_size=8)
COMMON = {"display": "Y", "sweep": "N", "appendage_length": 0}
VENUE_TIF = {TIF_DAY: "0", TIF_IOC: "3"}


def framed(message: bytes) -> bytes:
    return struct.pack(">HB", 1 + len(message), soupbintcp.UNSEQUENCED) + message


@pytest.fixture(scope="module")
def wire() -> np.ndarray:
    """One buffer for all examples: what one order leaves behind must not show in the next."""
    return templates(Credentials.of("USER", "PASSWORD"), "SESSION", 1, "TRADER")


@given(order_id=u32, side=side, qty=quantity, symbol=symbol, px=px, tif=tif, strategy=strategy)
@settings(max_examples=200, deadline=None)
def test_the_kernel_encodes_a_new_order_as_the_table_does(
    wire: np.ndarray, order_id: int, side: int, qty: int, symbol: str, px: int, tif: int, strategy: int
) -> None:
    encode.encode_enter(wire, encode.OUTBOX_AT, order_id, side, qty, pack_symbol(symbol), px, tif, strategy)
    expected = ouch.ENTER_ORDER.encode(
        user_ref=order_id, side=chr(side), quantity=qty, symbol=symbol, px=px, tif=VENUE_TIF[tif], capacity="P", cross="N",
        client_id=f"TRADER    /S{strategy:02}", **COMMON,
    )  # fmt: skip
    assert bytes(wire[encode.OUTBOX_AT :][: encode.ENTER_BYTES]) == framed(expected)


@given(target_id=u32, order_id=u32, qty=quantity, px=px, tif=tif, strategy=strategy)
@settings(max_examples=200, deadline=None)
def test_the_kernel_encodes_a_replace_as_the_table_does(
    wire: np.ndarray, target_id: int, order_id: int, qty: int, px: int, tif: int, strategy: int
) -> None:
    encode.encode_replace(wire, encode.OUTBOX_AT, target_id, 5, order_id, qty, px, tif, strategy)
    expected = ouch.REPLACE_ORDER.encode(
        orig_user_ref=target_id,
        user_ref=order_id,
        quantity=qty,
        px=px,
        tif=VENUE_TIF[tif],
        client_id=f"TRADER    /S{strategy:02}",
        **COMMON,
    )
    assert bytes(wire[encode.OUTBOX_AT :][: encode.REPLACE_BYTES]) == framed(expected)


@given(order_id=u32, qty=st.integers(0, ouch.QUANTITY_MAX))
@settings(max_examples=200, deadline=None)
def test_the_kernel_encodes_a_cancel_as_the_table_does(wire: np.ndarray, order_id: int, qty: int) -> None:
    encode.encode_cancel(wire, encode.OUTBOX_AT, order_id, 5, qty)
    expected = ouch.CANCEL_ORDER.encode(user_ref=order_id, quantity=qty)
    assert bytes(wire[encode.OUTBOX_AT :][: encode.CANCEL_BYTES]) == framed(expected)


def test_login_and_heartbeat_packets() -> None:
    wire = templates(Credentials.of("TICK", "PATH"), "", 7)
    assert bytes(wire[encode.HEARTBEAT_AT :][: encode.HEARTBEAT_BYTES]) == b"\x00\x01R"
    login = bytes(wire[encode.LOGIN_AT :][: encode.LOGIN_BYTES])
    assert login == b"\x00\x2fL" + b"TICK  " + b"PATH      " + b" " * 10 + b"7".rjust(20)
    assert bytes(templates(Credentials.of("A", "B"), "S1", 0)[encode.LOGIN_AT :][: encode.LOGIN_BYTES])[19:29] == b"        S1"


def test_a_session_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="login request: session='ELEVENCHARS'"):
        templates(Credentials.of("A", "B"), "ELEVENCHARS", 1)
