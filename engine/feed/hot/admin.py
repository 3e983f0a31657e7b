"""The messages that are not about an order in the book: directory, halts, collars, imbalances, the market's own state."""

from numba import njit

from engine.feed import itch
from engine.feed.hot.decoder import LOCATE, OFFSET_MASK, TIMESTAMP
from engine.wire.hot.bytes import get_raw64, get_u16, get_u32, get_u48, get_u64

SYSTEM_EVENT = itch.SYSTEM_EVENT.code
DIRECTORY = itch.STOCK_DIRECTORY.code
TRADING_ACTION = itch.TRADING_ACTION.code
REG_SHO = itch.REG_SHO.code
POSITION = itch.PARTICIPANT_POSITION.code
DECLINE_LEVEL = itch.MWCB_DECLINE_LEVEL.code
DECLINE_STATUS = itch.MWCB_STATUS.code
IPO = itch.IPO_QUOTING_PERIOD.code
COLLAR = itch.LULD_COLLAR.code
OPERATIONAL_HALT = itch.OPERATIONAL_HALT.code
BROKEN_TRADE = itch.BROKEN_TRADE.code
IMBALANCE = itch.NET_ORDER_IMBALANCE.code
RETAIL = itch.RETAIL_INTEREST.code
LISTING = itch.DIRECT_LISTING.code

R_STOCK = itch.STOCK_DIRECTORY["stock"]
R_CATEGORY = itch.STOCK_DIRECTORY["market_category"]
R_FINANCIAL = itch.STOCK_DIRECTORY["financial_status"]
R_LOT = itch.STOCK_DIRECTORY["round_lot_size"]
R_ROUND_ONLY = itch.STOCK_DIRECTORY["round_lots_only"]
R_CLASS = itch.STOCK_DIRECTORY["issue_classification"]
R_SUBTYPE = itch.STOCK_DIRECTORY["issue_subtype"]
R_AUTHENTIC = itch.STOCK_DIRECTORY["authenticity"]
R_SHORT_SALE = itch.STOCK_DIRECTORY["short_sale_threshold"]
R_IPO = itch.STOCK_DIRECTORY["ipo_flag"]
R_TIER = itch.STOCK_DIRECTORY["luld_tier"]
R_ETP = itch.STOCK_DIRECTORY["etp_flag"]
R_LEVERAGE = itch.STOCK_DIRECTORY["etp_leverage"]
R_INVERSE = itch.STOCK_DIRECTORY["inverse"]
S_EVENT = itch.SYSTEM_EVENT["event"]
H_STATE = itch.TRADING_ACTION["state"]
H_REASON = itch.TRADING_ACTION["reason"]
Y_ACTION = itch.REG_SHO["action"]
V_LEVEL_1 = itch.MWCB_DECLINE_LEVEL["level_1"]
V_LEVEL_2 = itch.MWCB_DECLINE_LEVEL["level_2"]
V_LEVEL_3 = itch.MWCB_DECLINE_LEVEL["level_3"]
W_BREACHED = itch.MWCB_STATUS["breached_level"]
K_RELEASE = itch.IPO_QUOTING_PERIOD["release_time"]
K_QUALIFIER = itch.IPO_QUOTING_PERIOD["qualifier"]
K_PX = itch.IPO_QUOTING_PERIOD["px"]
J_REFERENCE = itch.LULD_COLLAR["reference_px"]
J_UPPER = itch.LULD_COLLAR["upper_px"]
J_LOWER = itch.LULD_COLLAR["lower_px"]
J_EXTENSION = itch.LULD_COLLAR["extension"]
HALT_MARKET = itch.OPERATIONAL_HALT["market_code"]
HALT_ACTION = itch.OPERATIONAL_HALT["action"]
B_MATCH = itch.BROKEN_TRADE["match"]
I_PAIRED = itch.NET_ORDER_IMBALANCE["paired"]
I_IMBALANCE = itch.NET_ORDER_IMBALANCE["imbalance"]
I_DIRECTION = itch.NET_ORDER_IMBALANCE["direction"]
I_FAR = itch.NET_ORDER_IMBALANCE["far_px"]
I_NEAR = itch.NET_ORDER_IMBALANCE["near_px"]
I_REFERENCE = itch.NET_ORDER_IMBALANCE["reference_px"]
I_CROSS = itch.NET_ORDER_IMBALANCE["cross"]
I_VARIATION = itch.NET_ORDER_IMBALANCE["variation"]
N_INTEREST = itch.RETAIL_INTEREST["interest"]
O_ELIGIBLE = itch.DIRECT_LISTING["open_eligible"]
O_MINIMUM = itch.DIRECT_LISTING["minimum_px"]
O_MAXIMUM = itch.DIRECT_LISTING["maximum_px"]
O_NEAR_PX = itch.DIRECT_LISTING["near_execution_px"]
O_NEAR_TIME = itch.DIRECT_LISTING["near_execution_time"]
O_LOWER = itch.DIRECT_LISTING["lower_collar_px"]
O_UPPER = itch.DIRECT_LISTING["upper_collar_px"]

HALTED_LETTER = ord("H")
MARKET_Q = ord("Q")
MARKET_B = ord("B")

# What apply_admin has to say to whoever publishes.
QUIET = 0
LISTED = 1
STATE_CHANGED = 2
EVENT = 3


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def apply_admin(tops, states, market, stats, buffer, at, code):
    """Remember what a message of the right length says, and return what there is to publish. One that names an instrument there is
    no room for is counted in capacity_drops."""
    at = at & OFFSET_MASK
    if code in (SYSTEM_EVENT, DECLINE_LEVEL, DECLINE_STATUS, BROKEN_TRADE, POSITION):
        return apply_market(market[0], buffer, at, code)
    instrument = get_u16(buffer, at + LOCATE)
    if instrument >= states.shape[0]:
        stats[0].capacity_drops += 1
        return QUIET
    top = tops[instrument]
    state = states[instrument]
    if code == DIRECTORY:
        if top.known == 0:
            top.known = 1
            stats[0].instruments += 1
        list_instrument(state, buffer, at)
        return LISTED
    if code == TRADING_ACTION:
        state.action_reason = get_u32(buffer, at + H_REASON)
        top.state = buffer[at + H_STATE]
        return STATE_CHANGED
    if code == OPERATIONAL_HALT:
        bit = halt_bit(buffer[at + HALT_MARKET])
        top.halts = (top.halts | bit) if buffer[at + HALT_ACTION] == HALTED_LETTER else (top.halts & (0xFF ^ bit))
        return STATE_CHANGED
    apply_notice(state, buffer, at, code)
    return QUIET


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def halt_bit(market_code):
    """NASDAQ, BX and PSX halt apart from each other; a market of another letter is not taken for one of them."""
    if market_code == MARKET_Q:
        return 1
    return 2 if market_code == MARKET_B else 4


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def apply_market(market, buffer, at, code):
    if code == SYSTEM_EVENT:
        market.event = buffer[at + S_EVENT]
        market.event_ns = get_u48(buffer, at + TIMESTAMP)
        return EVENT
    if code == DECLINE_LEVEL:
        market.mwcb_level_1 = get_u64(buffer, at + V_LEVEL_1)
        market.mwcb_level_2 = get_u64(buffer, at + V_LEVEL_2)
        market.mwcb_level_3 = get_u64(buffer, at + V_LEVEL_3)
    elif code == DECLINE_STATUS:
        market.mwcb_breached = buffer[at + W_BREACHED]
    elif code == POSITION:
        market.participant_positions += 1
    else:
        market.broken_trades += 1
        market.broken_match = get_u64(buffer, at + B_MATCH)
    return QUIET


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def list_instrument(state, buffer, at):
    state.symbol = get_raw64(buffer, at + R_STOCK)
    state.lot_qty = get_u32(buffer, at + R_LOT)
    state.market_category = buffer[at + R_CATEGORY]
    state.financial_status = buffer[at + R_FINANCIAL]
    state.round_lots_only = buffer[at + R_ROUND_ONLY]
    state.issue_classification = buffer[at + R_CLASS]
    state.issue_subtype = get_u16(buffer, at + R_SUBTYPE)
    state.authenticity = buffer[at + R_AUTHENTIC]
    state.short_sale_threshold = buffer[at + R_SHORT_SALE]
    state.ipo_flag = buffer[at + R_IPO]
    state.luld_tier = buffer[at + R_TIER]
    state.etp_flag = buffer[at + R_ETP]
    state.etp_leverage = get_u32(buffer, at + R_LEVERAGE)
    state.inverse = buffer[at + R_INVERSE]


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def apply_notice(state, buffer, at, code):
    """The notices that no book and no flag depends on: Y J K N I O."""
    if code == IMBALANCE:
        state.noii_ns = get_u48(buffer, at + TIMESTAMP)
        state.noii_paired = get_u64(buffer, at + I_PAIRED)
        state.noii_imbalance = get_u64(buffer, at + I_IMBALANCE)
        state.noii_direction = buffer[at + I_DIRECTION]
        state.noii_far_px = get_u32(buffer, at + I_FAR)
        state.noii_near_px = get_u32(buffer, at + I_NEAR)
        state.noii_reference_px = get_u32(buffer, at + I_REFERENCE)
        state.noii_cross = buffer[at + I_CROSS]
        state.noii_variation = buffer[at + I_VARIATION]
    elif code == REG_SHO:
        state.reg_sho = buffer[at + Y_ACTION]
    elif code == COLLAR:
        state.luld_reference_px = get_u32(buffer, at + J_REFERENCE)
        state.luld_upper_px = get_u32(buffer, at + J_UPPER)
        state.luld_lower_px = get_u32(buffer, at + J_LOWER)
        state.luld_extension = get_u32(buffer, at + J_EXTENSION)
    elif code == IPO:
        state.ipo_release_s = get_u32(buffer, at + K_RELEASE)
        state.ipo_qualifier = buffer[at + K_QUALIFIER]
        state.ipo_px = get_u32(buffer, at + K_PX)
    elif code == RETAIL:
        state.retail_interest = buffer[at + N_INTEREST]
    elif code == LISTING:
        state.listing_open_eligible = buffer[at + O_ELIGIBLE]
        state.listing_minimum_px = get_u32(buffer, at + O_MINIMUM)
        state.listing_maximum_px = get_u32(buffer, at + O_MAXIMUM)
        state.listing_near_px = get_u32(buffer, at + O_NEAR_PX)
        state.listing_near_ns = get_u64(buffer, at + O_NEAR_TIME)
        state.listing_lower_px = get_u32(buffer, at + O_LOWER)
        state.listing_upper_px = get_u32(buffer, at + O_UPPER)
