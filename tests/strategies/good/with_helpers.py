"""Imports from the files beside it, in both ways."""

import fair_value
from engine.strategy.api import *
from fair_value import EDGE


def on_book(ctx, params, state, quote):
    buy(ctx, quote.instrument, fair_value.middle(quote) - EDGE, 1)
