"""Orders at random from a seed: new ones, replacements and cancels, some to trade at once, some far away. It never gets tired."""

from engine.strategy.api import *


class Params(Parameters):
    seed: int = 1


class Memory(State):
    dice: int = 0
    bid_px: int = 0
    ask_px: int = 0
    first: int = 0
    second: int = 0
    third: int = 0


def on_book(ctx, params, state, quote):
    state.bid_px, state.ask_px = quote.bid_px, quote.ask_px
    if state.dice == 0:
        state.dice = 1 + (params.seed * 7919 + quote.instrument * 104_729) % 2_147_483_646


def on_timer(ctx, params, state, timer):
    if state.bid_px == 0 or state.ask_px == 0:
        return
    which = roll(state) % 3
    if which == 0:
        state.first = act(ctx, state, timer.instrument, state.first)
    elif which == 1:
        state.second = act(ctx, state, timer.instrument, state.second)
    else:
        state.third = act(ctx, state, timer.instrument, state.third)


def roll(state):
    state.dice = state.dice * 48_271 % 2_147_483_647
    return state.dice // 16


def act(ctx, state, instrument, held):
    """Something with the order `held`, or a new one; returns what is to be held then."""
    what = roll(state) % 10
    is_buy = roll(state) % 2 == 0
    # From five ticks behind the best price to three through the other side's.
    away = 100 * (roll(state) % 9 - 5)
    qty = 1 + roll(state) % 300
    px = state.bid_px + away if is_buy else state.ask_px - away
    if held == 0 or what < 3:
        tif = TIF_IOC if what == 0 else TIF_DAY
        if is_buy:
            return buy(ctx, instrument, px, qty, tif)
        return sell(ctx, instrument, px, qty, tif)
    if what < 7:
        changed = replace(ctx, instrument, held, px, qty)
        return changed if changed != 0 else held
    cancel(ctx, instrument, held)
    return 0
