"""One order for every quote, and nothing remembered: the strategy of perf/bench_order_path.py."""

from engine.strategy.api import TIF_IOC, buy


def on_book(ctx, params, state, quote):  # type: ignore[no-untyped-def]
    buy(ctx, quote.instrument, quote.bid_px, 100, TIF_IOC)
