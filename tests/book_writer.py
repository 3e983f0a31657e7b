"""Another process that changes shared books as fast as it can, and what it is given to replay."""

import mmap
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from engine.feed import itch
from engine.feed.decoder import make_decoder
from engine.feed.hot.decoder import Decoder
from engine.feed.hot.replay import replay
from engine.feed.records import records
from engine.layout import FEED_STATS
from engine.wire.table import Value
from tests.book_answers import Orders
from tests.itch_flow import Flow, frame


class Cycle:
    """One instrument's messages among those of others, over and over: after each, what rests is known; the version says which one."""

    instrument = 1

    def __init__(self, seed: int, count: int = 400) -> None:
        flow = Flow(seed, symbols=3)
        self.states: list[Orders] = []
        self.messages: list[bytes] = []
        while len(self.states) < count:
            raw = flow.next()
            if itch.ABOUT_ORDER[raw[0]]:
                self.take(raw, flow)
        for ref, (locate, *_) in list(flow.resting.items()):
            del flow.resting[ref]
            self.take(itch.ORDER_DELETE.encode(locate=locate, tracking=0, timestamp=0, ref=ref), flow)
        self.raw = np.frombuffer(frame(self.messages), np.uint8)

    def take(self, raw: bytes, flow: Flow) -> None:
        self.messages.append(raw)
        if int.from_bytes(raw[1:3], "big") == self.instrument:
            resting = flow.resting.items()
            self.states.append({ref: (side, px, shares) for ref, (locate, side, px, shares) in resting if locate == self.instrument})

    def after(self, version: int) -> Orders:
        return self.states[(version // 2 - 1) % len(self.states)]


@contextmanager
def writing(decoder: Decoder, raw: np.ndarray) -> Iterator[None]:
    """A child process replays messages into shared books over and over, as fast as it can; what they add, they also take away."""
    # Compiled before the fork.
    replay(decoder, raw, 0, len(raw))
    stop = mmap.mmap(-1, mmap.PAGESIZE)
    child = os.fork()
    if child == 0:
        while not stop[0]:
            replay(decoder, raw, 0, len(raw))
        os._exit(int(decoder.stats[0]["unknown_orders"] != 0 or decoder.stats[0]["capacity_drops"] != 0))
    try:
        yield
        stop[0] = 1
        assert os.waitpid(child, 0)[1] == 0
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


def decoder_for(*, orders_max: int, levels_max: int, instruments_max: int) -> Decoder:
    return make_decoder(
        orders_max=orders_max, levels_max=levels_max, instruments_max=instruments_max, stats=records(1, FEED_STATS), shared=True
    )


def churn(instrument: int, refs: list[int]) -> list[bytes]:
    """Every ref on a price of its own: the side's memory grows to what they need, and is given back with the last of them."""
    head: dict[str, Value] = {"locate": instrument, "tracking": 0, "timestamp": 0}
    there = [itch.ADD_ORDER.encode(**head, ref=ref, side="B", shares=1, stock="A", px=100 + number) for number, ref in enumerate(refs)]
    return there + [itch.ORDER_DELETE.encode(**head, ref=ref) for ref in refs]
