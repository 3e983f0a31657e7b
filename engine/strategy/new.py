"""A strategy to start from: one short file that trades as it is, commented for the person who will change it."""

import keyword
from pathlib import Path

from engine.strategy.errors import StrategyError

TEMPLATE = '''"""{name}: one lot on each side of the market, at the best prices, within a limit.

Run it:  tickpath config > {name}.toml, set use = "./{name}.py" under [strategy], then tickpath run {name}.toml
Try it without an exchange: drive() of engine.strategy.drive takes a script of events and returns the orders.
"""

from engine.strategy.api import *


class Params(Parameters):
    """Set under [strategy.params] of the config, by these names: int, float or bool. Without a default the config must give it."""

    position_max: int = 300  # long or short


class Order(State):
    """Our order on one side. id is 0 where there is none; open is what has not traded yet; going: it has been told to go."""

    id: int = 0
    px: int = 0
    open: int = 0
    going: bool = False
    quiet_until_ns: int = 0


class Memory(State):
    """What is remembered of each instrument, at these values when trading begins: int, float, bool, or a class such as Order."""

    bid: Order
    ask: Order


def on_book(ctx, params, state, quote):
    """The best bid or offer changed, and the book is valid. Prices are whole numbers: 1872000 is 187.20."""
    if quote.bid_sz == 0 or quote.ask_sz == 0:
        return
    lot, held = lot_qty(ctx, quote.instrument), position(ctx, quote.instrument)
    keep(ctx, quote.instrument, BUY, state.bid, quote.bid_px, min(lot, params.position_max - held))
    keep(ctx, quote.instrument, SELL, state.ask, quote.ask_px, min(lot, params.position_max + held))


def keep(ctx, instrument, side, order, px, qty):
    """Have an order for qty at px. A function of yours compiles like a handler does."""
    if order.id == 0 and qty > 0 and now_ns(ctx) >= order.quiet_until_ns:
        # The order's id comes back, or 0 if it may not leave now.
        order.id = buy(ctx, instrument, px, qty) if side == BUY else sell(ctx, instrument, px, qty)
        order.px, order.open, order.going = px, qty, False
    elif order.id != 0 and order.px != px and not order.going:
        # The market has moved. on_report hears when the order is gone, and the next quote sends a new one.
        order.going = cancel(ctx, instrument, order.id)


def on_report(ctx, params, state, report):
    """Something became of an order: ACCEPTED, REPLACED, CANCELLED, EXECUTED, REJECTED or BROKEN. position() knows of it already."""
    order = state.bid if report.side == BUY else state.ask
    if report.order_id != order.id:
        return
    if report.kind == EXECUTED or report.kind == CANCELLED:
        order.open -= report.qty
    elif report.kind == REJECTED:
        # What stays open: nothing of an order that was refused, all of it where only its cancel was. Ask for nothing for a while.
        order.open, order.going = report.qty, False
        order.quiet_until_ns = now_ns(ctx) + 100_000_000
    if order.open <= 0:
        order.id = 0


def on_status(ctx, params, state, status):
    """The book became valid, or ceased to be (a gap, a halt, a crossed market): have nothing in a book that we cannot see."""
    if status.flags != BOOK_VALID:
        state.bid.going = cancel(ctx, status.instrument, state.bid.id)
        state.ask.going = cancel(ctx, status.instrument, state.ask.id)
'''


def write_new(name: str, folder: Path) -> Path:
    """Write folder/NAME.py, a strategy that runs, and return its path. StrategyError for a name or a folder that will not do."""
    if name.endswith(".py"):
        raise StrategyError(f"name={name}: expected it without .py, such as {name.removesuffix('.py')}")
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii() or name.startswith("__"):
        raise StrategyError(f"name={name!r}: expected a name that Python can import: letters, digits and _, not beginning with a digit")
    if not folder.is_dir():
        raise StrategyError(f"folder={folder}: there is no such folder; make it first")
    path = folder / f"{name}.py"
    try:
        with path.open("x") as file:
            file.write(TEMPLATE.format(name=name))
    except FileExistsError:
        raise StrategyError(f"{path}: there is a file of this name already; it was left alone, choose another name") from None
    except OSError as error:
        raise StrategyError(f"{path}: cannot write it: {error.strerror}") from None
    return path
