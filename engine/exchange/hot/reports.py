"""OUCH 5.0 out: what an account is told, as sequenced SoupBinTCP packets in its log, and its lines on the positions board.

The log is a ring of the newest packets, so that a client which comes back gets what it missed. hot/session.py copies it to the wire,
or has it said in OUCH 4.2 (hot/ouch42.py).
"""

import numpy as np
from numba import njit

from engine.exchange.hot.state import LAST_USER_REF, LOG_SLOT_BYTES, LOGGED, NOTHING, NOW_NS
from engine.gateway.ouch.v50 import (
    ACCEPTED,
    ACCOUNT_QUERY_RESPONSE,
    AIQ_CANCELED,
    CANCEL_BY_USER,
    CANCEL_IOC,
    CANCELED,
    DISABLE_ENTRY_RESPONSE,
    ENABLE_ENTRY_RESPONSE,
    ENTER_ORDER,
    EXECUTED,
    LIQUIDITY_ADDED,
    LIQUIDITY_REMOVED,
    MASS_CANCEL,
    MASS_CANCEL_RESPONSE,
    REJECTED,
    REPLACE_ORDER,
    REPLACED,
    STATE_LIVE,
)
from engine.layout import BUY, INSTRUMENTS_MAX
from engine.wire.hot.bytes import put_raw64, put_u16, put_u32, put_u64
from engine.wire.soupbintcp import PAYLOAD_AT, SEQUENCED, TYPE_AT
from shm.hot import board_close, board_open

TIMESTAMP = ACCEPTED["timestamp"]
CLIENT_ID_BYTES = np.int64(14)

# Typed, as NOTHING is.
ACCEPTED_CODE, ACCEPTED_BYTES = np.int64(ACCEPTED.code), np.int64(ACCEPTED.length)
ACCEPTED_USER_REF, ACCEPTED_SIDE, ACCEPTED_QTY = ACCEPTED["user_ref"], ACCEPTED["side"], ACCEPTED["quantity"]
ACCEPTED_SYMBOL, ACCEPTED_PX, ACCEPTED_TIF = ACCEPTED["symbol"], ACCEPTED["px"], ACCEPTED["tif"]
ACCEPTED_DISPLAY, ACCEPTED_REF, ACCEPTED_CAPACITY = ACCEPTED["display"], ACCEPTED["order_ref"], ACCEPTED["capacity"]
ACCEPTED_SWEEP, ACCEPTED_CROSS, ACCEPTED_STATE = ACCEPTED["sweep"], ACCEPTED["cross"], ACCEPTED["state"]
ACCEPTED_CLIENT_ID, ACCEPTED_APPENDAGE = ACCEPTED["client_id"], ACCEPTED["appendage_length"]

ENTER_DISPLAY, ENTER_TIF, ENTER_CAPACITY = ENTER_ORDER["display"], ENTER_ORDER["tif"], ENTER_ORDER["capacity"]
ENTER_SWEEP, ENTER_CROSS, ENTER_CLIENT_ID = ENTER_ORDER["sweep"], ENTER_ORDER["cross"], ENTER_ORDER["client_id"]

REPLACED_CODE, REPLACED_BYTES = np.int64(REPLACED.code), np.int64(REPLACED.length)
REPLACED_ORIG, REPLACED_USER_REF, REPLACED_SIDE = REPLACED["orig_user_ref"], REPLACED["user_ref"], REPLACED["side"]
REPLACED_QTY, REPLACED_SYMBOL, REPLACED_PX = REPLACED["quantity"], REPLACED["symbol"], REPLACED["px"]
REPLACED_TIF, REPLACED_DISPLAY, REPLACED_REF = REPLACED["tif"], REPLACED["display"], REPLACED["order_ref"]
REPLACED_CAPACITY, REPLACED_SWEEP, REPLACED_CROSS = REPLACED["capacity"], REPLACED["sweep"], REPLACED["cross"]
REPLACED_STATE, REPLACED_CLIENT_ID, REPLACED_APPENDAGE = REPLACED["state"], REPLACED["client_id"], REPLACED["appendage_length"]

AGAIN_TIF, AGAIN_DISPLAY, AGAIN_SWEEP = REPLACE_ORDER["tif"], REPLACE_ORDER["display"], REPLACE_ORDER["sweep"]
AGAIN_CLIENT_ID = REPLACE_ORDER["client_id"]

CANCELED_CODE, CANCELED_BYTES = np.int64(CANCELED.code), np.int64(CANCELED.length)
CANCELED_USER_REF, CANCELED_QTY, CANCELED_REASON = CANCELED["user_ref"], CANCELED["quantity"], CANCELED["reason"]
# OUCH 5.0, cancel reasons: cancelled by the system; here on a lost connection, or where the book has no room.
CANCEL_BY_SYSTEM = np.int64(ord("Z"))
# The same, of a self match that was prevented.
CANCEL_SELF_MATCH = np.int64(ord("Q"))
USER_CANCEL, IOC_CANCEL = np.int64(CANCEL_BY_USER), np.int64(CANCEL_IOC)
ADDED, REMOVED = np.int64(LIQUIDITY_ADDED), np.int64(LIQUIDITY_REMOVED)

EXECUTED_CODE, EXECUTED_BYTES = np.int64(EXECUTED.code), np.int64(EXECUTED.length)
EXECUTED_USER_REF, EXECUTED_QTY, EXECUTED_PX = EXECUTED["user_ref"], EXECUTED["quantity"], EXECUTED["px"]
EXECUTED_LIQUIDITY, EXECUTED_MATCH, EXECUTED_APPENDAGE = EXECUTED["liquidity"], EXECUTED["match"], EXECUTED["appendage_length"]

REJECTED_CODE, REJECTED_BYTES = np.int64(REJECTED.code), np.int64(REJECTED.length)
REJECTED_USER_REF, REJECTED_REASON, REJECTED_CLIENT_ID = REJECTED["user_ref"], REJECTED["reason"], REJECTED["client_id"]

PREVENTED_CODE, PREVENTED_BYTES = np.int64(AIQ_CANCELED.code), np.int64(AIQ_CANCELED.length)
PREVENTED_USER_REF, PREVENTED_QTY, PREVENTED_REASON = AIQ_CANCELED["user_ref"], AIQ_CANCELED["quantity"], AIQ_CANCELED["reason"]
PREVENTED_MATCH_QTY, PREVENTED_PX = AIQ_CANCELED["quantity_prevented"], AIQ_CANCELED["px"]
PREVENTED_LIQUIDITY = AIQ_CANCELED["liquidity"]

ANSWER_CODE, ANSWER_BYTES = np.int64(ACCOUNT_QUERY_RESPONSE.code), np.int64(ACCOUNT_QUERY_RESPONSE.length)
ANSWER_NEXT = ACCOUNT_QUERY_RESPONSE["next_user_ref"]

MASS_CODE, MASS_BYTES = np.int64(MASS_CANCEL_RESPONSE.code), np.int64(MASS_CANCEL_RESPONSE.length)
DISABLED_CODE, DISABLED_BYTES = np.int64(DISABLE_ENTRY_RESPONSE.code), np.int64(DISABLE_ENTRY_RESPONSE.length)
ENABLED_CODE, ENABLED_BYTES = np.int64(ENABLE_ENTRY_RESPONSE.code), np.int64(ENABLE_ENTRY_RESPONSE.length)
# What was asked, from the user_ref to before the appendage length, stands in the answer as it came.
ASKED_AT, ECHO_AT = np.int64(MASS_CANCEL["user_ref"]), np.int64(MASS_CANCEL_RESPONSE["user_ref"])
APPENDAGE_BYTES = np.int64(2)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def open_report(clients, owner, stats, code, length, now_ns):
    """An account's next sequenced packet: where in its log the message begins, with type and time written."""
    log = clients.log[owner - 1]
    count = clients.words[owner - 1, LOGGED]
    at = (count % (log.shape[0] // LOG_SLOT_BYTES)) * LOG_SLOT_BYTES
    put_u16(log, at, length + PAYLOAD_AT - TYPE_AT)
    log[at + TYPE_AT] = SEQUENCED
    clients.words[owner - 1, LOGGED] = count + 1
    stats[0].reports += 1
    at += PAYLOAD_AT
    log[at] = code
    put_u64(log, at + TIMESTAMP, now_ns)
    return at


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def copy_bytes(target, at, source, start, length):
    for byte in range(length):
        target[at + byte] = source[start + byte]


@njit(cache=True, inline="always", _nrt=False)
def report_accepted(venue, owner, source, start, user_ref, side, qty, symbol, px, ref):
    """The enter order message at source[start:] was accepted; what it said is said back."""
    log = venue.clients.log[owner - 1]
    at = open_report(venue.clients, owner, venue.stats, ACCEPTED_CODE, ACCEPTED_BYTES, venue.words[NOW_NS])
    put_u32(log, at + ACCEPTED_USER_REF, user_ref)
    log[at + ACCEPTED_SIDE] = side
    put_u32(log, at + ACCEPTED_QTY, qty)
    put_raw64(log, at + ACCEPTED_SYMBOL, symbol)
    put_u64(log, at + ACCEPTED_PX, px)
    log[at + ACCEPTED_TIF] = source[start + ENTER_TIF]
    log[at + ACCEPTED_DISPLAY] = source[start + ENTER_DISPLAY]
    put_u64(log, at + ACCEPTED_REF, ref)
    log[at + ACCEPTED_CAPACITY] = source[start + ENTER_CAPACITY]
    log[at + ACCEPTED_SWEEP] = source[start + ENTER_SWEEP]
    log[at + ACCEPTED_CROSS] = source[start + ENTER_CROSS]
    log[at + ACCEPTED_STATE] = STATE_LIVE
    copy_bytes(log, at + ACCEPTED_CLIENT_ID, source, start + ENTER_CLIENT_ID, CLIENT_ID_BYTES)
    put_u16(log, at + ACCEPTED_APPENDAGE, NOTHING)
    venue.stats[0].accepted += 1


@njit(cache=True, inline="always", _nrt=False)
def report_replaced(venue, owner, source, start, orig_user_ref, user_ref, side, qty, symbol, px, ref, capacity, cross):
    """The replace order message at source[start:] was accepted, with `qty` open now."""
    log = venue.clients.log[owner - 1]
    at = open_report(venue.clients, owner, venue.stats, REPLACED_CODE, REPLACED_BYTES, venue.words[NOW_NS])
    put_u32(log, at + REPLACED_ORIG, orig_user_ref)
    put_u32(log, at + REPLACED_USER_REF, user_ref)
    log[at + REPLACED_SIDE] = side
    put_u32(log, at + REPLACED_QTY, qty)
    put_raw64(log, at + REPLACED_SYMBOL, symbol)
    put_u64(log, at + REPLACED_PX, px)
    log[at + REPLACED_TIF] = source[start + AGAIN_TIF]
    log[at + REPLACED_DISPLAY] = source[start + AGAIN_DISPLAY]
    put_u64(log, at + REPLACED_REF, ref)
    log[at + REPLACED_CAPACITY] = capacity
    log[at + REPLACED_SWEEP] = source[start + AGAIN_SWEEP]
    log[at + REPLACED_CROSS] = cross
    log[at + REPLACED_STATE] = STATE_LIVE
    copy_bytes(log, at + REPLACED_CLIENT_ID, source, start + AGAIN_CLIENT_ID, CLIENT_ID_BYTES)
    put_u16(log, at + REPLACED_APPENDAGE, NOTHING)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def report_canceled(clients, owner, stats, now_ns, user_ref, qty, reason):
    """`qty` shares were taken off the book."""
    log = clients.log[owner - 1]
    at = open_report(clients, owner, stats, CANCELED_CODE, CANCELED_BYTES, now_ns)
    put_u32(log, at + CANCELED_USER_REF, user_ref)
    put_u32(log, at + CANCELED_QTY, qty)
    log[at + CANCELED_REASON] = reason


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def report_executed(clients, owner, stats, now_ns, user_ref, qty, px, liquidity, match):
    log = clients.log[owner - 1]
    at = open_report(clients, owner, stats, EXECUTED_CODE, EXECUTED_BYTES, now_ns)
    put_u32(log, at + EXECUTED_USER_REF, user_ref)
    put_u32(log, at + EXECUTED_QTY, qty)
    put_u64(log, at + EXECUTED_PX, px)
    log[at + EXECUTED_LIQUIDITY] = liquidity
    put_u64(log, at + EXECUTED_MATCH, match)
    put_u16(log, at + EXECUTED_APPENDAGE, NOTHING)
    stats[0].client_executions += 1


@njit(cache=True, inline="always", _nrt=False)
def report_rejected(venue, owner, source, client_id_at, user_ref, reason):
    log = venue.clients.log[owner - 1]
    at = open_report(venue.clients, owner, venue.stats, REJECTED_CODE, REJECTED_BYTES, venue.words[NOW_NS])
    put_u32(log, at + REJECTED_USER_REF, user_ref)
    put_u16(log, at + REJECTED_REASON, reason)
    copy_bytes(log, at + REJECTED_CLIENT_ID, source, client_id_at, CLIENT_ID_BYTES)
    venue.stats[0].rejected += 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def report_prevented(clients, owner, stats, now_ns, user_ref, qty, prevented_qty, px, liquidity):
    """`qty` shares of an order were cancelled because `prevented_qty` of them would have traded with the same owner's, at px."""
    log = clients.log[owner - 1]
    at = open_report(clients, owner, stats, PREVENTED_CODE, PREVENTED_BYTES, now_ns)
    put_u32(log, at + PREVENTED_USER_REF, user_ref)
    put_u32(log, at + PREVENTED_QTY, qty)
    log[at + PREVENTED_REASON] = CANCEL_SELF_MATCH
    put_u32(log, at + PREVENTED_MATCH_QTY, prevented_qty)
    put_u64(log, at + PREVENTED_PX, px)
    log[at + PREVENTED_LIQUIDITY] = liquidity


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def report_done(clients, owner, stats, now_ns, code, length, source, start):
    """What the message at source[start:] asked for is done (mass cancel, disable, enable): it is said back."""
    log = clients.log[owner - 1]
    at = open_report(clients, owner, stats, code, length, now_ns)
    copy_bytes(log, at + ECHO_AT, source, start + ASKED_AT, length - ECHO_AT - APPENDAGE_BYTES)
    put_u16(log, at + length - APPENDAGE_BYTES, NOTHING)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def report_account(clients, owner, stats, now_ns):
    """Which user_ref the account may use next. It stands behind everything else that the account has been told."""
    at = open_report(clients, owner, stats, ANSWER_CODE, ANSWER_BYTES, now_ns)
    put_u32(clients.log[owner - 1], at + ANSWER_NEXT, clients.words[owner - 1, LAST_USER_REF] + 1)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def change_open(positions, owner, instrument, side, change_qty):
    """What an account has open on one side of an instrument."""
    at = (owner - 1) * INSTRUMENTS_MAX + instrument
    version = board_open(positions, at)
    line = positions[at]
    if side == BUY:
        line.open_buy += change_qty
    else:
        line.open_sell += change_qty
    board_close(positions, at, version)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def book_fill(positions, owner, instrument, side, qty, px, open_change_qty):
    """One of an account's executions, and by how much it changed what it has open."""
    at = (owner - 1) * INSTRUMENTS_MAX + instrument
    version = board_open(positions, at)
    line = positions[at]
    line.fills += 1
    if side == BUY:
        line.position += qty
        line.bought += qty
        line.cash -= qty * px
        line.open_buy += open_change_qty
    else:
        line.position -= qty
        line.sold += qty
        line.cash += qty * px
        line.open_sell += open_change_qty
    board_close(positions, at, version)
