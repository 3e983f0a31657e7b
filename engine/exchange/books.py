"""What stands at the simulated exchange, read from its arrays between two turns: books, open orders and executions, for whoever checks."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from engine.book.hot.book import NONE, order_ref, worse_level
from engine.exchange.hot.listing import traded_instrument
from engine.exchange.hot.state import LOG_SLOT_BYTES, LOGGED, OPEN, SPEAKS_42, Venue
from engine.gateway.ouch.hot.translate import NUMBER_AT, NUMBER_DIGITS
from engine.gateway.ouch.v50 import EXECUTED
from engine.layout import BUY, SELL, pack_symbol, unpack_symbol
from engine.wire.soupbintcp import LENGTH_BYTES, PAYLOAD_AT, TYPE_AT


def user_ref_of(venue: Venue, account: int, number: int) -> int:
    """What an account's client calls an order. In OUCH 4.2 that is a token: the number that ours have in them (its digits 2 to 9), and the
    exchange's own number of any other."""
    if not venue.clients.words[account, SPEAKS_42]:
        return number
    entry = venue.clients.tokens[account, number & (venue.clients.tokens.shape[1] - 1)]
    token = (int(entry["first"]) & (1 << 64) - 1 | int(entry["rest"]) << 64).to_bytes(14, "little")
    said = token[NUMBER_AT : NUMBER_AT + NUMBER_DIGITS]
    return int(said) if said.isdigit() else number


class Resting(NamedTuple):
    """An order on a book. account: whose, from 0; None where it is nobody's who is connected (generated flow, history)."""

    side: str
    px: int
    qty: int
    ref: int
    account: int | None
    user_ref: int


class OpenOrder(NamedTuple):
    """An account's order. executed: what it and the orders it replaced have executed."""

    symbol: str
    side: str
    px: int
    qty: int
    executed: int


class Execution(NamedTuple):
    """What an account was told of a trade. liquidity: "A" where its order was resting, "R" where it came."""

    user_ref: int
    qty: int
    px: int
    liquidity: str
    match: int


def book_of(venue: Venue, symbol: str) -> list[Resting]:
    """A symbol's orders, bids and then asks, in priority order. KeyError where it is not listed."""
    found = np.flatnonzero(venue.listing.symbols == pack_symbol(symbol))
    if not len(found):
        raise KeyError(symbol)
    return [order for side in (BUY, SELL) for order in _side_of(venue, int(found[0]), side)]


def _side_of(venue: Venue, instrument: int, side: int) -> Iterator[Resting]:
    book = venue.book
    depth = 0
    while (level := worse_level(book, instrument, side, depth)) >= 0:
        handle = int(book.levels[level]["head"])
        while handle != NONE:
            order = book.orders[handle]
            owner = int(order["owner"])
            user_ref = user_ref_of(venue, owner - 1, int(order["user_ref"])) if owner else 0
            px = int(book.levels[level]["px"])
            yield Resting(chr(side), px, int(order["qty"]), int(order_ref(book, handle)), owner - 1 if owner else None, user_ref)
            handle = int(order["next"])
        depth += 1


def open_orders(venue: Venue, account: int) -> dict[int, OpenOrder]:
    """An account's open orders by user_ref."""
    clients, found = venue.clients, {}
    for slot in clients.live[account, : int(clients.words[account, OPEN])].tolist():
        order = venue.book.orders[int(clients.table[account, slot]["handle"])]
        symbol = unpack_symbol(venue.listing.symbols[int(traded_instrument(order["instrument"], order["flags"]))])
        px = int(venue.book.levels[int(order["level"])]["px"])
        found[user_ref_of(venue, account, int(order["user_ref"]))] = OpenOrder(
            symbol, chr(int(order["side"])), px, int(order["qty"]), int(order["executed"])
        )
    return found


def executions(venue: Venue, account: int) -> list[Execution]:
    """The executions among an account's newest reports (as many reports as the exchange keeps), oldest first; one that was told twice is
    there twice."""
    log = venue.clients.log[account]
    slots = len(log) // LOG_SLOT_BYTES
    logged = int(venue.clients.words[account, LOGGED])
    found = []
    for number in range(max(0, logged - slots), logged):
        at = number % slots * LOG_SLOT_BYTES
        size = int.from_bytes(log[at : at + LENGTH_BYTES].tobytes(), "big") - (PAYLOAD_AT - TYPE_AT)
        raw = log[at + PAYLOAD_AT : at + PAYLOAD_AT + size].tobytes()
        if raw[0] == EXECUTED.code:
            said: dict[str, Any] = EXECUTED.decode(raw)
            found.append(
                Execution(user_ref_of(venue, account, said["user_ref"]), said["quantity"], said["px"], said["liquidity"], said["match"])
            )
    return found
