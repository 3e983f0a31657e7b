"""OUCH 5.0 in: an account's messages, checked, and done by hot/matching.py. Those of 4.2 come here as 5.0 (hot/ouch42.py).

A message that is none, or not as long as its table and its appendage say, is malformed: the session cannot go on. A message that
is one but asks for what cannot be is rejected, with the reason. A user_ref that is not above the last is ignored, and counted; so are,
as OUCH has it, cancels of what is not open or of less than is open anyway.

A mass cancel is of the account's own orders, in one symbol or, where that is blank, in all. It is answered at once, then each order is
cancelled, and what the client says next is heard after that. While order entry is disabled, new orders and replaces are rejected, over
the end of the connection too; cancels pass. The firm in these messages is said back and not judged: an account has one.
"""

import numpy as np
from numba import njit

from engine.book.hot.book import order_ref
from engine.exchange.hot.listing import (
    CLOSING,
    FOR_CROSS,
    NOT_LISTED,
    NOT_TOLD,
    OPENING,
    QUOTING,
    TRADING,
    find_symbol,
    is_halted,
    shadow_of,
    traded_instrument,
)
from engine.exchange.hot.market import publish_cancel, publish_delete
from engine.exchange.hot.matching import NOT_FOUND, find_client_order, move, next_ref, rest_for_cross, submit, withdraw
from engine.exchange.hot.reports import (
    DISABLED_BYTES,
    DISABLED_CODE,
    ENABLED_BYTES,
    ENABLED_CODE,
    MASS_BYTES,
    MASS_CODE,
    USER_CANCEL,
    report_accepted,
    report_account,
    report_canceled,
    report_done,
    report_rejected,
    report_replaced,
)
from engine.exchange.hot.state import (
    CANCEL_INSTRUMENT,
    CANCEL_REASON,
    CLOSED,
    ENTRY_OFF,
    HAS_CLOSING,
    HAS_OPENING,
    IGNORED,
    LAST_USER_REF,
    NO,
    NOTHING,
    NOW_NS,
    OPEN,
    SPEAKS_42,
    TO_CANCEL,
)
from engine.gateway.ouch.v50 import (
    ACCOUNT_QUERY,
    CANCEL_ORDER,
    CLOSING_CROSS,
    DISABLE_ENTRY,
    ENABLE_ENTRY,
    ENTER_ORDER,
    MASS_CANCEL,
    NO_CROSS,
    OPENING_CROSS,
    QUANTITY_MAX,
    REJECT_CLOSED,
    REJECT_INVALID_PRICE,
    REJECT_INVALID_QUANTITY,
    REJECT_INVALID_SIDE,
    REJECT_INVALID_SYMBOL,
    REJECT_OTHER,
    REJECT_REPLACE_NOT_ALLOWED,
    REPLACE_ORDER,
    TIF_DAY,
    TIF_IOC,
)
from engine.layout import BUY, SELL
from engine.wire.hot.bytes import get_raw64, get_u16, get_u32, get_u64

ENTER_CODE, ENTER_BYTES = ENTER_ORDER.code, ENTER_ORDER.length
ENTER_USER_REF, ENTER_SIDE, ENTER_QTY = ENTER_ORDER["user_ref"], ENTER_ORDER["side"], ENTER_ORDER["quantity"]
ENTER_SYMBOL, ENTER_PX, ENTER_TIF = ENTER_ORDER["symbol"], ENTER_ORDER["px"], ENTER_ORDER["tif"]
ENTER_CAPACITY, ENTER_CLIENT_ID = ENTER_ORDER["capacity"], ENTER_ORDER["client_id"]
ENTER_CROSS, ENTER_APPENDAGE = ENTER_ORDER["cross"], ENTER_ORDER["appendage_length"]

REPLACE_CODE, REPLACE_BYTES = REPLACE_ORDER.code, REPLACE_ORDER.length
REPLACE_ORIG, REPLACE_USER_REF, REPLACE_QTY = REPLACE_ORDER["orig_user_ref"], REPLACE_ORDER["user_ref"], REPLACE_ORDER["quantity"]
REPLACE_PX, REPLACE_TIF, REPLACE_CLIENT_ID = REPLACE_ORDER["px"], REPLACE_ORDER["tif"], REPLACE_ORDER["client_id"]
REPLACE_APPENDAGE = REPLACE_ORDER["appendage_length"]

CANCEL_CODE, CANCEL_BYTES = CANCEL_ORDER.code, CANCEL_ORDER.length
CANCEL_USER_REF, CANCEL_QTY = CANCEL_ORDER["user_ref"], CANCEL_ORDER["quantity"]

ASK_MASS_CODE, ASK_MASS_BYTES, MASS_SYMBOL = MASS_CANCEL.code, MASS_CANCEL.length, MASS_CANCEL["symbol"]
ASK_OFF_CODE, ASK_ON_CODE, ASK_BYTES = DISABLE_ENTRY.code, ENABLE_ENTRY.code, np.int64(DISABLE_ENTRY.length)
ASK_USER_REF = DISABLE_ENTRY["user_ref"]
QUERY_CODE, QUERY_BYTES, BARE_QUERY_BYTES = ACCOUNT_QUERY.code, ACCOUNT_QUERY.length, 1
APPENDAGE_BYTES = 2
# Eight spaces, as get_raw64 reads them.
BLANK_SYMBOL = np.int64(0x2020202020202020)

# OUCH 5.0: prices are below 200,000 dollars.
PX_LIMIT = 200_000 * 10_000

# Beside find_symbol's answers.
NO_SUCH_CROSS = -2

DONE = True
MALFORMED = False


@njit(cache=True, inline="always", _nrt=False)
def handle_message(venue, owner, source, at, length):
    """Do what an account's OUCH message of `length` bytes at source[at:] asks. DONE or MALFORMED."""
    code = source[at] if length > 0 else 0
    if code == ENTER_CODE:
        if length < ENTER_BYTES or length != ENTER_BYTES + get_u16(source, at + ENTER_APPENDAGE):
            return MALFORMED
        enter_order(venue, owner, source, at)
    elif code == REPLACE_CODE:
        if length < REPLACE_BYTES or length != REPLACE_BYTES + get_u16(source, at + REPLACE_APPENDAGE):
            return MALFORMED
        replace_order(venue, owner, source, at)
    elif code == CANCEL_CODE:
        if length < CANCEL_BYTES:
            return MALFORMED
        cancel_order(venue, owner, get_u32(source, at + CANCEL_USER_REF), get_u32(source, at + CANCEL_QTY))
    else:
        return handle_request(venue, owner, source, at, length)
    return DONE


@njit(cache=True, inline="always", _nrt=False)
def handle_request(venue, owner, source, at, length):
    """What concerns the account, not one order. DONE or MALFORMED."""
    code = source[at] if length > 0 else 0
    if code == QUERY_CODE:
        if length != BARE_QUERY_BYTES and not ends_whole(source, at, length, np.int64(QUERY_BYTES)):
            return MALFORMED
        report_account(venue.clients, owner, venue.stats, venue.words[NOW_NS])
        return DONE
    if code != ASK_MASS_CODE and code != ASK_OFF_CODE and code != ASK_ON_CODE:
        return MALFORMED
    if not ends_whole(source, at, length, np.int64(ASK_MASS_BYTES) if code == ASK_MASS_CODE else ASK_BYTES):
        return MALFORMED
    if not is_new(venue, owner, get_u32(source, at + ASK_USER_REF)):
        return DONE
    now_ns = venue.words[NOW_NS]
    if code == ASK_MASS_CODE:
        report_done(venue.clients, owner, venue.stats, now_ns, MASS_CODE, MASS_BYTES, source, at)
        begin_mass_cancel(venue, owner, get_raw64(source, at + MASS_SYMBOL))
    elif code == ASK_OFF_CODE:
        venue.clients.words[owner - 1, ENTRY_OFF] = 1
        report_done(venue.clients, owner, venue.stats, now_ns, DISABLED_CODE, DISABLED_BYTES, source, at)
    else:
        venue.clients.words[owner - 1, ENTRY_OFF] = 0
        report_done(venue.clients, owner, venue.stats, now_ns, ENABLED_CODE, ENABLED_BYTES, source, at)
    return DONE


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def ends_whole(source, at, length, size):
    """Whether a message is as long as its table and its appendage length, the last of its fields, say."""
    return length >= size and length == size + get_u16(source, at + size - APPENDAGE_BYTES)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def begin_mass_cancel(venue, owner, symbol):
    """Have the account's orders in `symbol` cancelled, or all where it is blank. There are none in a symbol that is not listed."""
    account = venue.clients.words[owner - 1]
    instrument = NOTHING if symbol == BLANK_SYMBOL else np.int64(find_symbol(venue.listing, symbol))
    venue.stats[0].mass_cancels += 1
    account[CANCEL_INSTRUMENT] = instrument
    account[CANCEL_REASON] = USER_CANCEL
    account[TO_CANCEL] = account[OPEN] if instrument >= 0 else 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def fault_of(venue, owner, instrument, qty, px, tif):
    """What a new order and a replacement must both pass: 0, or the reason to reject it."""
    if qty < 1 or qty > QUANTITY_MAX:
        return REJECT_INVALID_QUANTITY
    if px < 1 or px >= PX_LIMIT:
        return REJECT_INVALID_PRICE
    if tif != TIF_DAY and tif != TIF_IOC:
        return REJECT_OTHER
    if venue.words[CLOSED] != 0 or is_halted(venue.listing, instrument):
        return REJECT_CLOSED
    if venue.clients.words[owner - 1, ENTRY_OFF] != 0:
        return REJECT_OTHER
    return 0


@njit(cache=True, _nrt=False)
def is_new(venue, owner, user_ref):
    """Whether a user_ref is above the account's last; it is the last from then on."""
    if user_ref <= venue.clients.words[owner - 1, LAST_USER_REF]:
        venue.words[IGNORED] += 1
        return False
    venue.clients.words[owner - 1, LAST_USER_REF] = user_ref
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_taken(clients, owner, user_ref):
    """Whether an order that is still live has the place of this user_ref."""
    return clients.table[owner - 1, user_ref & (clients.table.shape[1] - 1)].handle != 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def shadow_for(venue, instrument, cross):
    """Where an order for a cross of an instrument rests, or NO_SUCH_CROSS: none of that kind is still to come."""
    state = venue.listing.states[instrument]
    if cross == OPENING_CROSS and venue.words[HAS_OPENING] != 0 and state == QUOTING:
        return shadow_of(instrument, OPENING)
    if cross == CLOSING_CROSS and venue.words[HAS_CLOSING] != 0 and state in (TRADING, NOT_TOLD):
        return shadow_of(instrument, CLOSING)
    return np.int64(NO_SUCH_CROSS)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def cross_of(instrument, flags):
    """What an order on the book of `instrument` waits for, as OUCH says it."""
    if flags & FOR_CROSS == 0:
        return NO_CROSS
    return CLOSING_CROSS if instrument >= shadow_of(NOTHING, CLOSING) else OPENING_CROSS


@njit(cache=True, inline="always", _nrt=False)
def enter_order(venue, owner, source, at):
    venue.stats[0].orders += 1
    user_ref = get_u32(source, at + ENTER_USER_REF)
    if not is_new(venue, owner, user_ref):
        return
    side = np.int64(source[at + ENTER_SIDE])
    qty = get_u32(source, at + ENTER_QTY)
    px = get_u64(source, at + ENTER_PX)
    tif = source[at + ENTER_TIF]
    symbol = get_raw64(source, at + ENTER_SYMBOL)
    cross = source[at + ENTER_CROSS]
    instrument = find_symbol(venue.listing, symbol)
    if instrument >= 0 and cross != NO_CROSS:
        instrument = shadow_for(venue, instrument, cross)
    if instrument == NOT_LISTED:
        reason = REJECT_INVALID_SYMBOL
    elif instrument == NO_SUCH_CROSS:
        reason = REJECT_OTHER
    elif side != BUY and side != SELL:
        reason = REJECT_INVALID_SIDE
    else:
        reason = fault_of(venue, owner, instrument, qty, px, tif)
    if reason == 0 and is_taken(venue.clients, owner, user_ref):
        reason = REJECT_OTHER
    if reason != 0:
        report_rejected(venue, owner, source, at + ENTER_CLIENT_ID, user_ref, reason)
        return
    ref = next_ref(venue.words)
    report_accepted(venue, owner, source, at, user_ref, side, qty, symbol, px, ref)
    capacity = np.int64(source[at + ENTER_CAPACITY]) & ~FOR_CROSS
    if cross != NO_CROSS:
        rest_for_cross(venue, ref, instrument, side, px, qty, owner, user_ref, NOTHING, capacity | FOR_CROSS)
        return
    submit(venue, ref, instrument, side, px, qty, tif == TIF_IOC, owner, user_ref, NOTHING, capacity, NO, NOTHING, NOTHING)


@njit(cache=True, inline="always", _nrt=False)
def replace_order(venue, owner, source, at):
    venue.stats[0].replaces += 1
    orig_user_ref = get_u32(source, at + REPLACE_ORIG)
    user_ref = get_u32(source, at + REPLACE_USER_REF)
    if not is_new(venue, owner, user_ref):
        return
    handle = find_client_order(venue.clients, owner, venue.book.orders, orig_user_ref)
    if handle == NOT_FOUND:
        if venue.clients.words[owner - 1, SPEAKS_42] != 0:
            # OUCH 4.2, Replace Order Message: that of an order which is not live is ignored.
            venue.words[IGNORED] += 1
        else:
            report_rejected(venue, owner, source, at + REPLACE_CLIENT_ID, user_ref, np.int64(REJECT_REPLACE_NOT_ALLOWED))
        return
    order = venue.book.orders[handle]
    qty = get_u32(source, at + REPLACE_QTY)
    px = get_u64(source, at + REPLACE_PX)
    tif = source[at + REPLACE_TIF]
    instrument = np.int64(order.instrument)
    reason = fault_of(venue, owner, instrument, qty, px, tif)
    mask = venue.clients.table.shape[1] - 1
    if reason == 0 and (user_ref & mask) != (orig_user_ref & mask) and is_taken(venue.clients, owner, user_ref):
        reason = REJECT_OTHER
    if reason != 0:
        report_rejected(venue, owner, source, at + REPLACE_CLIENT_ID, user_ref, reason)
        return
    executed = np.int64(order.executed)
    if qty <= executed:
        cut_order(venue, handle, np.int64(order.qty), USER_CANCEL)
        return
    ref = next_ref(venue.words)
    flags = np.int64(order["flags"])
    symbol = venue.listing.symbols[traded_instrument(instrument, flags)]
    side = np.int64(order.side)
    capacity, cross = flags & ~FOR_CROSS, cross_of(instrument, flags)
    report_replaced(venue, owner, source, at, orig_user_ref, user_ref, side, qty - executed, symbol, px, ref, capacity, cross)
    move(venue, handle, ref, px, qty - executed, tif == TIF_IOC, user_ref, executed, NO, NOTHING)


@njit(cache=True, inline="always", _nrt=False)
def cancel_order(venue, owner, user_ref, total_qty):
    """Section 2.3: total_qty limits what may execute in all, what has been executed included; 0 cancels what is open."""
    venue.stats[0].cancels += 1
    handle = find_client_order(venue.clients, owner, venue.book.orders, user_ref)
    if handle == NOT_FOUND:
        return
    order = venue.book.orders[handle]
    keep = max(total_qty - np.int64(order.executed), 0)
    if keep < order.qty:
        cut_order(venue, handle, np.int64(order.qty) - keep, USER_CANCEL)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def cut_order(venue, handle, qty, reason):
    """Take `qty` off a client's resting order, which keeps its place, and tell everybody."""
    order = venue.book.orders[handle]
    now_ns = venue.words[NOW_NS]
    instrument = np.int64(order.instrument)
    ref = order_ref(venue.book, handle)
    if order["flags"] & FOR_CROSS != 0:
        # Nobody was shown it.
        pass
    elif qty == order.qty:
        publish_delete(venue.market, now_ns, instrument, ref, NOTHING)
    else:
        publish_cancel(venue.market, now_ns, instrument, ref, qty, NOTHING)
    report_canceled(venue.clients, np.int64(order.owner), venue.stats, now_ns, np.int64(order.user_ref), qty, reason)
    withdraw(venue, handle, qty)
