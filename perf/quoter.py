"""One order for every quote that has a bid, and nothing remembered: the strategy of perf/bench_order_path.py."""

from engine.strategy.api import TIF_IOC, buy


def on_book(ctx, params, state, quote):  # type: ignore[no-untyped-def]
    # While the market opens there is an offer first, and no bid to go by.
    if quote.bid_sz > 0:
        buy(ctx, quote.instrument, quote.bid_px, 100, TIF_IOC)
