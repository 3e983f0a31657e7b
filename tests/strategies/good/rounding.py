"""Beside fair_value.py."""

TICK = 100


def down(px):
    return px // TICK * TICK
