"""What is fuzzed: every decoder that bytes from outside reach. A target's round must end, and leave what it is about whole."""

import contextlib
import gzip
import random
import socket
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from engine.book.book import check_invariants
from engine.exchange.menu import Latency
from engine.exchange.stage import Account
from engine.feed import itch
from engine.feed.capture import find_lines, messages_of
from engine.gateway.ouch import v42
from engine.gateway.ouch import v50 as ouch
from engine.layout import PHASE_TRADING
from engine.messages.hot.stamp import NOW
from engine.wire import soupbintcp
from tests.exchange_rig import Rig, cancel, client_token, decode_ouch, enter, replace, soup_packets
from tests.exchange_rig import packet as soup_packet
from tests.fault_mutate import mutated
from tests.fault_servers import ExchangeServers, FeedRecovery
from tests.fault_sessions import SESSION_TARGETS, any_message
from tests.feed_house import FeedHouse
from tests.gateway_house import House, login_accepted, sequenced
from tests.itch_flow import Flow, end_of_session, frame, heartbeat, in_packets, packet, random_message, unframe
from tests.ouch42_tongue import Tongue
from tools.capture import lines_of, messages, survey

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
REAL = DATA / "itch" / "aapl_20190130_093000.itch"
# A house takes this many rounds before a new one is built: what one round left behind is there for the next.
ROUNDS_PER_HOUSE = 25
TURNS_MAX = 20_000


class Target(Protocol):
    def round(self, seed: int) -> None: ...
    def close(self) -> None: ...


def stream(rng: random.Random, count: int) -> list[bytes]:
    """Valid messages: real ones where they are there, or those of a flow with every type in it."""
    if REAL.exists() and rng.random() < 0.5:
        messages = unframe(REAL.read_bytes()[: 1 << 16])
        begin = rng.randrange(max(1, len(messages) - count))
        return messages[begin : begin + count]
    flow = Flow(rng.randrange(1 << 30))
    found = [*flow.opening(), *flow.messages(count)]
    return found + [random_message(message, rng)[0] for message in itch.MESSAGES]


class FeedPackets:
    """MoldUDP64: packets with any header, any framing and any messages in them, on a feed handler that goes on from round to round."""

    def __init__(self) -> None:
        self.house: FeedHouse | None = None

    def round(self, seed: int) -> None:
        rng = random.Random(seed)
        if self.house is None or seed % ROUNDS_PER_HOUSE == 0:
            self.close()
            self.house = FeedHouse(ring_capacity=rng.choice([16, 4096]), orders_max=500, levels_max=100)
        house = self.house
        valid = list(in_packets(stream(rng, 60), rng, first=max(1, int(house.control.feed_sequence)), most=10))
        for raw in [*valid, heartbeat(rng.choice([0, 1, 1 << 40, (1 << 64) - 1])), end_of_session(rng.randrange(100))]:
            draw = rng.random()
            if draw < 0.4:
                raw = mutated(rng, raw, valid)
            elif draw < 0.5:
                raw = packet(rng.choice([0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]), stream(rng, 3)[:3])
            elif draw < 0.7:
                # Whole framing around messages that are not.
                messages = [mutated(rng, message, valid)[:1_000] for message in stream(rng, 5)[:5]]
                raw = packet(int(house.control.feed_sequence), messages)
            house.sender.sendto(raw[:60_000], house.address)
            turns(house)
        assert house.stage is not None
        check_invariants(house.stage.state.decoder.book)

    def close(self) -> None:
        if self.house is not None:
            self.house.close()
            self.house = None


def turns(house: FeedHouse) -> None:
    """Turn until nothing is left, time passing meanwhile."""
    for _ in range(TURNS_MAX):
        before = house.stats.ring_waits
        done = house.turn()
        house.read()
        if done < 0:
            raise AssertionError(f"the feed handler ended: {house.reason(done)}")
        house.clock.words[NOW] += 50_000
        if done == 0 and house.stats.ring_waits == before:
            return
    raise AssertionError(f"still busy after {TURNS_MAX} turns")


class FeedFile:
    """An ITCH file, plain or gzip, changed anywhere."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()

    def round(self, seed: int) -> None:
        rng = random.Random(seed)
        raw = frame(stream(rng, 300))
        zipped = rng.random() < 0.5
        path = Path(self.folder.name) / ("day.itch.gz" if zipped else "day.itch")
        if rng.random() < 0.8 or not zipped:
            raw = mutated(rng, raw)
        if zipped:
            raw = gzip.compress(raw, 1)
            if rng.random() < 0.5:
                raw = mutated(rng, raw)
        path.write_bytes(raw)
        try:
            house = FeedHouse(source="file", path=path, orders_max=500, levels_max=100)
        except (ValueError, OSError):
            return
        with contextlib.closing(house):
            done = house.turn_to_the_end()
            assert done in (0, *house.stage.reasons), done  # type: ignore[union-attr]
            check_invariants(house.stage.state.decoder.book)  # type: ignore[union-attr]

    def close(self) -> None:
        self.folder.cleanup()


class ExchangeOrders:
    """OUCH over SoupBinTCP as a client sends it to the simulated exchange."""

    protocol = "ouch50"

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.rig: Rig | None = None

    def round(self, seed: int) -> None:
        rng = random.Random(seed)
        if self.rig is None or seed % ROUNDS_PER_HOUSE == 0:
            self._close_rig()
            latency = Latency([rng.choice([0, 300_000])], [rng.choice([0, 300_000])], seed)
            self.rig = Rig(
                Path(self.folder.name), orders_max=500, levels_max=100, client_orders_max=1 << 10, reports_max=64, latency=latency,
                self_trade=rng.choice(["trade", "cancel_newest", "cancel_oldest", "cancel_both"]), accounts=(Account("QUIET", "ONE"),),
                cancel_on_disconnect=rng.random() < 0.5, protocol=self.protocol,
            )  # fmt: skip
            self.rig.phase(PHASE_TRADING)
            self.quiet = self.rig.wire_client(1)
        login = soupbintcp.LOGIN_REQUEST.encode(username="TICK", password="PATH", session="", sequence="1".rjust(20))
        said = [soup_packet(login[0], login[1:])] + [soup_packet(soupbintcp.UNSEQUENCED, raw) for raw in self.orders(rng)]
        if rng.random() < 0.3:
            said[0] = mutated(rng, said[0])
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(said))
            said[at] = (
                mutated(rng, said[at], said) if rng.random() < 0.7 else soup_packet(rng.randrange(256), rng.randbytes(rng.randrange(100)))
            )
        client = socket.create_connection(("127.0.0.1", self.rig.stage.order_port))
        client.setblocking(False)
        for raw in said:
            try:
                client.send(raw)
                client.recv(1 << 16)
            except BlockingIOError:
                pass
            except OSError:
                break
            for _ in range(3):
                assert self.rig.step(1_000) >= 0
        client.close()
        # It is seen to be gone, and its orders are taken off the book.
        for _ in range(200):
            self.rig.step(1_000_000)
        self.rig.packets()
        check_invariants(self.rig.stage.state.venue.book)
        self.ask_quietly(self.rig, 1 + seed % ROUNDS_PER_HOUSE)

    def orders(self, rng: random.Random) -> list[bytes]:
        return orders(rng)

    def ask_quietly(self, made: Rig, user_ref: int) -> None:
        """Whatever one client does, another one is served."""
        self.quiet.send(soup_packet(soupbintcp.UNSEQUENCED, enter(user_ref, "B", 1, 100, tif="3")))
        for _ in range(5):
            made.step(1_000_000)
        told = [payload for kind, payload in soup_packets(self.quiet.recv(1 << 16))[0] if kind == soupbintcp.SEQUENCED]
        answers = [decode_ouch(payload) for payload in told if payload[:1] != b"E"]
        assert [(answer["type"], answer["user_ref"]) for answer in answers] in ([("A", user_ref), ("C", user_ref)], [("A", user_ref)]), (
            answers
        )

    def _close_rig(self) -> None:
        if self.rig is not None:
            self.rig.close()
            self.rig = None

    def close(self) -> None:
        self._close_rig()
        self.folder.cleanup()


class ExchangeOrders42(ExchangeOrders):
    """The same in OUCH 4.2."""

    protocol = "ouch42"

    def orders(self, rng: random.Random) -> list[bytes]:
        tongue = Tongue(client_token)
        found = []
        for raw in orders(rng):
            # Some prices do not fit four bytes, and some messages are none of 4.2.
            with contextlib.suppress(ValueError):
                found.append(tongue.to_42(raw, inbound=True) if rng.random() < 0.7 else any_message(rng, v42.INBOUND_BY_CODE))
        return found


def orders(rng: random.Random) -> list[bytes]:
    """What a client may say, with any value in any field."""
    found: list[bytes] = []
    for number in range(1, rng.randrange(2, 30)):
        draw = rng.random()
        if draw < 0.4:
            found.append(enter(number, rng.choice("BS"), rng.randrange(1, 1_000), 1_500_000 + rng.randrange(-500, 500) * 100))
        elif draw < 0.5:
            found.append(cancel(rng.randrange(number), rng.choice([0, 10])))
        elif draw < 0.6:
            found.append(replace(rng.randrange(number), number, rng.randrange(1, 1_000), 1_500_000))
        else:
            found.append(any_message(rng, ouch.INBOUND_BY_CODE))
    return found


class GatewayReports:
    """OUCH over SoupBinTCP as a venue sends it to the gateway, which may end its session with a reason and nothing else."""

    protocol = "ouch50"
    reports = ouch.OUTBOUND_BY_CODE

    def round(self, seed: int) -> None:
        rng = random.Random(seed)
        logged_in = rng.random() < 0.8
        house = House(login=False, reconnect_tries=rng.choice([0, 3]), reconnect_ms=1, protocol=self.protocol)
        with contextlib.closing(house):
            # Garbage comes while it asks for the head of the sequence, for the day, or for what the venue heard; or when it is up.
            if logged_in:
                house.login()
            elif rng.random() < 0.7:
                house.probe()
                if rng.random() < 0.5:
                    house.answer_login()
            for _ in range(rng.randrange(6)):
                house.new(qty=rng.randrange(1, 1_000))
            said = [login_accepted(rng.choice([0, 1, 1 << 40]))] if not logged_in else []
            for _ in range(rng.randrange(1, 30)):
                draw = rng.random()
                if draw < 0.3:
                    said.append(sequenced(ouch.ACCEPTED, user_ref=rng.randrange(8), quantity=rng.randrange(1 << 20)))
                elif draw < 0.6:
                    said.append(soup_packet(soupbintcp.SEQUENCED, any_message(rng, self.reports)))
                elif draw < 0.8:
                    said.append(mutated(rng, sequenced(ouch.ACCEPTED, user_ref=1, quantity=100), said))
                else:
                    said.append(soup_packet(rng.randrange(256), rng.randbytes(rng.randrange(100))))
            for raw in said:
                with contextlib.suppress(OSError):
                    house.venue.send(raw)
                house.turn()
                house.turn()
                house.read()
                with contextlib.suppress(OSError):
                    house.venue.hear()
                house.clock.words[NOW] += 1_000_000
                if house.ending:
                    assert house.ending in house.stage.reasons, house.ending
                    return

    def close(self) -> None:
        pass


class GatewayReports42(GatewayReports):
    """The same in OUCH 4.2; its heartbeats, which end a replay, are among what is said."""

    protocol = "ouch42"
    reports = v42.OUTBOUND_BY_CODE


class CaptureFiles:
    """Packet captures, plain or gzip, changed anywhere: what is wrong with one is said, and nothing it claims is believed."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.whole = [path.read_bytes()[: 1 << 15] for path in sorted(DATA.rglob("*.pcap"))] or [written_capture()]

    def round(self, seed: int) -> None:
        rng = random.Random(seed)
        path = Path(self.folder.name) / "lines.pcap"
        raw = mutated(rng, rng.choice([*self.whole, written_capture()]), self.whole)
        if rng.random() < 0.3:
            raw = gzip.compress(raw, 1)
            raw = mutated(rng, raw) if rng.random() < 0.5 else raw
        path.write_bytes(raw)
        for read in (
            lambda: list(lines_of(survey(path))),
            lambda: list(messages(path, 1_000)),
            lambda: list(messages_of(path, find_lines(path))),
        ):
            with contextlib.suppress(ValueError, OSError):
                read()

    def close(self) -> None:
        self.folder.cleanup()


def written_capture() -> bytes:
    """A pcap of some MoldUDP64 packets, where there are no real ones."""
    rng = random.Random(1)
    found = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65_535, 1)
    for number, payload in enumerate(in_packets(Flow(1).messages(40), rng)):
        udp = struct.pack(">HHHH", 1, 26_400, 8 + len(payload), 0) + payload
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes([10, 0, 0, 1]), bytes([233, 54, 12, 111])) + udp
        found += struct.pack("<IIII", number, 0, 14 + len(ip), 14 + len(ip)) + bytes(12) + b"\x08\0" + ip
    return found


TARGETS: dict[str, Callable[[], Target]] = {
    "packets": FeedPackets,
    "file": FeedFile,
    "orders": ExchangeOrders,
    "orders42": ExchangeOrders42,
    "reports": GatewayReports,
    "reports42": GatewayReports42,
    "captures": CaptureFiles,
    "recovery": FeedRecovery,
    "servers": ExchangeServers,
    **SESSION_TARGETS,
}
