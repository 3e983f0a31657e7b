"""`tickpath inspect open_orders`: what may be open at the venue, of an instance that runs or of one that died and was not cleaned."""

import contextlib
from dataclasses import asdict
from typing import TypeVar

import numpy as np
import orjson

from engine.layout import CONTROL, INSTRUMENT, OPEN_ORDER
from engine.runtime import open_orders
from engine.runtime.open_orders import OpenOrder, OpenOrders
from shm._shim import lib
from shm.identity import Geometry
from shm.layout import schema_of
from shm.segment import SegmentError
from shm.status import only_watches
from shm.table import Board, Table
from tools.rings import aligned

NAME = ".open_orders"

Kind = TypeVar("Kind", Table, Board)


def is_order_table(geometry: Geometry) -> bool:
    """Whether a segment is one, as this build lays it out; another build's is shown as any board is."""
    return geometry.name.endswith(NAME) and geometry.schema == schema_of(record=OPEN_ORDER)


def look(name: str) -> OpenOrders:
    """The open orders in table `name`. SegmentError where it is not there, or not ours. Without what stands beside it, what that says
    (symbols, ages) is missing."""
    instance = name.removesuffix(NAME)
    with contextlib.ExitStack() as attached:

        def beside(kind: type[Kind], whole_name: str, dtype: np.dtype) -> Kind:
            board = kind.attach(whole_name, dtype, writable=False)
            attached.callback(board.detach)
            only_watches(board.segment)
            return board

        table = beside(Board, name, OPEN_ORDER)
        instruments, tsc_hz = None, 0.0
        with contextlib.suppress(SegmentError):
            instruments = beside(Board, f"{instance}.instruments", INSTRUMENT)
        with contextlib.suppress(SegmentError):
            tsc_hz = float(beside(Table, f"{instance}.control", CONTROL).records[0]["tsc_hz"])
        return open_orders.read(table, instruments, now_tsc=lib.tp_rdtsc(), tsc_hz=tsc_hz)


def lines(name: str, *, as_json: bool) -> list[bytes]:
    """What is printed of them."""
    found = look(name)
    if as_json:
        return [orjson.dumps(asdict(order)) for order in found.orders] + (
            [orjson.dumps({"event": "senseless", "lines": found.senseless})] if found.senseless else []
        )
    head = ("symbol", "side", "px", "open", "executed", "state", "order_id", "user_ref", "strategy", "age")
    table = aligned([head, *map(_row, found.orders)], right={2, 3, 4, 6, 7, 8, 9})
    said = table if found.orders else ["no order may be open"]
    return [line.encode() for line in said + found.sentences(most=len(found.orders))[len(found.orders) :]]


def _row(order: OpenOrder) -> tuple[str, ...]:
    state = order.state.replace("_", " ") + (f" of {order.replaces}" if order.replaces else "") + ("" if order.whole else ", half written")
    age = "-" if order.age_s is None else f"{order.age_s:,.3f} s"
    numbers = (f"{order.px:.4f}", f"{order.open:,}", f"{order.executed:,}")
    return (order.symbol, order.side, *numbers, state, str(order.order_id), str(order.user_ref), str(order.strategy), age)
