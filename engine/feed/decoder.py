"""What decoding works on, made: empty books, and what is remembered of each instrument. It opens nothing, and loads in little time."""

import numpy as np

from engine.book.book import make_book
from engine.book.hot.book import Book
from engine.feed.hot.decoder import ROW_WORDS, WINDOW_ROWS, Decoder
from engine.feed.records import MARKET_RECORD, STATE_RECORD, TOP_RECORD, records


def make_decoder(*, orders_max: int, levels_max: int, instruments_max: int, stats: np.recarray, shared: bool = False) -> Decoder:
    """Empty books and states for instruments 0 to `instruments_max` - 1; counters go to `stats`, shape (1,) FEED_STATS.

    shared: processes forked from here later see the books too.
    """
    return decoder_on(make_book(orders_max=orders_max, levels_max=levels_max, instruments_max=instruments_max, shared=shared), stats)


def decoder_on(book: Book, stats: np.recarray, tops: np.recarray | None = None) -> Decoder:
    """A decoder that keeps `book`, which is empty, with states for as many instruments. What is counted by instrument goes to `tops`,
    TOP_RECORD, made here where it is not given."""
    instruments_max = len(book.sides) // 2
    return Decoder(
        book=book,
        tops=records(instruments_max, TOP_RECORD) if tops is None else tops[:instruments_max],
        states=records(instruments_max, STATE_RECORD),
        market=records(1, MARKET_RECORD),
        stats=stats,
        counts=np.zeros(256, np.int64),
        window=np.zeros(WINDOW_ROWS * ROW_WORDS, np.int64),
    )
