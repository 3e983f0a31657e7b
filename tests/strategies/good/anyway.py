"""Tries to trade at every event, whatever it is told."""

from engine.strategy.api import *


class Memory(State):
    sent: int = 0
    refused: int = 0


def on_report(ctx, params, state, report):
    send(ctx, state, report.instrument)


def on_status(ctx, params, state, status):
    send(ctx, state, status.instrument)
    cancel(ctx, status.instrument, 7)


def on_trade(ctx, params, state, trade):
    send(ctx, state, trade.instrument)
    send(ctx, state, trade.instrument + 1)
    send(ctx, state, trade.instrument - 65_536)
    send(ctx, state, 1 << 40)


def send(ctx, state, instrument):
    if buy(ctx, instrument, 1_000_000, 1) == 0:
        state.refused += 1
    else:
        state.sent += 1
