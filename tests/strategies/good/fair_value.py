"""Beside with_helpers.py."""

from rounding import down

EDGE = 200


def middle(quote):
    return down((quote.bid_px + quote.ask_px) // 2)
