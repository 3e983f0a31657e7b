"""The gate's state, made before the loop: every array that its kernels work on."""

from collections.abc import Sequence

import numpy as np

from engine.layout import INSTRUMENT, INSTRUMENTS_MAX, QUOTE, STRATEGIES_MAX, pack_symbol
from engine.risk.hot.state import (
    BUCKET_WORDS,
    FILLED_NS,
    KNOWN,
    LEVEL,
    LINE,
    OWN,
    RULES_WORDS,
    SENT,
    SWINGS,
    TOKEN,
    WAYS,
    WINDOW_WORDS,
    Risk,
)
from engine.risk.limits import OFF_WORD, Limits
from engine.risk.sentences import SENTENCES
from engine.risk.words import NUMBERINGS
from shm.aligned import line_aligned
from shm.table import Board, Table

SETS_LEAST, SETS_MOST = 1 << 8, 1 << 16


def make_risk(
    limits: Limits,
    symbols: Sequence[str],
    *,
    quotes: Board,
    instruments: Board,
    positions: Board,
    control: Table,
    rules: Board,
    facts: Table,
    orders_max: int,
) -> Risk:
    """The gate's state. Only `symbols` may be traded. What it judges by is in `rules` (engine/risk/rules.py); `limits` are those
    at the start, by which its tables are sized. orders_max are the places of the order table."""
    bucket = np.zeros(BUCKET_WORDS, np.int64)
    bucket[LEVEL] = limits.message_burst * TOKEN
    bucket[FILLED_NS] = 0
    places = max(1, NUMBERINGS * len(symbols))
    local = np.zeros(RULES_WORDS, np.int64)
    local[0] = -1
    record = facts.records[0]
    return Risk(
        shared=rules.words()[0],
        rules=local,
        facts=facts.words()[0],
        counts=record["counts"],
        allowed=np.array(sorted(pack_symbol(symbol) for symbol in symbols), np.int64),
        known=line_aligned(INSTRUMENTS_MAX, KNOWN),
        lines=line_aligned(places, LINE),
        swings=np.zeros((places, 2 * SWINGS), np.int64),
        own=line_aligned(orders_max, OWN),
        bucket=bucket,
        window=np.zeros(WINDOW_WORDS, np.int64),
        sent=line_aligned(sets_for(limits) * WAYS, SENT),
        fires=np.zeros(STRATEGIES_MAX, np.int64),
        quotes=quotes.records,
        quote=np.zeros(1, QUOTE).view(np.recarray),
        instruments=instruments.records,
        instrument=np.zeros(1, INSTRUMENT).view(np.recarray),
        positions=positions.records,
        control=control.words()[0],
    )


def sets_for(limits: Limits) -> int:
    """Sets of places for orders sent lately, a power of two: four for each that the pace of messages lets into the window."""
    if limits.duplicates_max == OFF_WORD:
        return SETS_LEAST
    expected = limits.message_burst + limits.message_rate_per_s * limits.duplicates_window_ms / 1e3
    return 1 << (int(min(max(4 * expected, SETS_LEAST), SETS_MOST)) - 1).bit_length()


def verdicts(risk: Risk) -> dict[str, int]:
    """How many orders met which verdict, by its sentence, most frequent first; those that never happened are left out."""
    return verdicts_of(risk.counts)


def verdicts_of(counts: np.ndarray) -> dict[str, int]:
    counted = {SENTENCES[reason]: int(count) for reason, count in enumerate(counts) if count}
    return dict(sorted(counted.items(), key=lambda item: -item[1]))
