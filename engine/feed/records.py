"""What the feed handler remembers of each instrument and of the market: private to it, beside what it publishes."""

import numpy as np

from engine.layout import SYMBOL

# Of each instrument the best bid and offer as last published, what its book is worth, and its statistics: engine/runtime/control.h.
TOP_RECORD = SYMBOL

# The other messages of an instrument as they last were: text of one byte as ASCII, longer text as its bytes big-endian, prices in
# the venue's fixed point, times as the venue sends them.
STATE_RECORD = np.dtype(
    [
        # R, the stock directory
        ("symbol", "u8"), ("lot_qty", "u4"), ("market_category", "u1"), ("financial_status", "u1"), ("round_lots_only", "u1"),
        ("issue_classification", "u1"), ("issue_subtype", "u2"), ("authenticity", "u1"), ("short_sale_threshold", "u1"),
        ("ipo_flag", "u1"), ("luld_tier", "u1"), ("etp_flag", "u1"), ("inverse", "u1"), ("etp_leverage", "u4"),
        # H, why it trades or does not; Y; N
        ("action_reason", "u4"), ("reg_sho", "u1"), ("retail_interest", "u1"),
        # K, an IPO's quotation: seconds after midnight
        ("ipo_qualifier", "u1"), ("ipo_release_s", "u4"), ("ipo_px", "i8"),
        # J, the auction collar
        ("luld_reference_px", "i8"), ("luld_upper_px", "i8"), ("luld_lower_px", "i8"), ("luld_extension", "u4"),
        # I, the imbalance before a cross; ns after midnight
        ("noii_ns", "i8"), ("noii_paired", "i8"), ("noii_imbalance", "i8"), ("noii_far_px", "i8"), ("noii_near_px", "i8"),
        ("noii_reference_px", "i8"), ("noii_direction", "u1"), ("noii_cross", "u1"), ("noii_variation", "u1"),
        # O, a direct listing; ns after midnight
        ("listing_open_eligible", "u1"), ("listing_minimum_px", "i8"), ("listing_maximum_px", "i8"), ("listing_near_px", "i8"),
        ("listing_near_ns", "i8"), ("listing_lower_px", "i8"), ("listing_upper_px", "i8"),
    ],
    align=True,
)  # fmt: skip

# S (ns after midnight), V (in 1/100000000), W; L and B as counts: who makes a market in what is nobody's business here, and a broken
# trade names a match that was published as a trade long ago: it is kept, and positions learn of theirs from the order session.
MARKET_RECORD = np.dtype(
    [
        ("event", "u1"), ("mwcb_breached", "u1"), ("event_ns", "i8"), ("mwcb_level_1", "i8"), ("mwcb_level_2", "i8"),
        ("mwcb_level_3", "i8"), ("participant_positions", "i8"), ("broken_trades", "i8"), ("broken_match", "i8"),
    ],
    align=True,
)  # fmt: skip


def records(count: int, dtype: np.dtype) -> np.recarray:
    """`count` zeroed records, as kernels take them."""
    return np.zeros(count, dtype).view(np.recarray)
