"""Orders as OUCH in SoupBinTCP packets: templates filled by engine/gateway/stage.py, copied to where they are sent from. An order then
writes only what is its own, there: a template itself is never written, as reading back what was just stored waits for the stores.

    wire   0 enter order   64 replace order   128 cancel order   160 client heartbeat   168 logout   176 account query   192 login request
         256 outbox: the orders of a turn, one behind the other, for one send        1280 cancel orders of the sweep, the same way

Nothing touches what is still to be sent (PENDING_BYTES), so what is kept for later needs no copy.

The templates are of OUCH 5.0 or of 4.2, as the session is, and stand at the same places. Which of the two, the type and length of the first
one say: an order is encoded as its template is.
"""

import numpy as np
from numba import njit

from engine.gateway.ouch import v42
from engine.gateway.ouch.hot.translate import put_token
from engine.gateway.ouch.v50 import ACCOUNT_QUERY, CANCEL_ORDER, ENTER_ORDER, REPLACE_ORDER, TIF_DAY, TIF_IOC
from engine.layout import TIF_IOC as OURS_IOC
from engine.wire.hot.bytes import get_raw64, put_raw64, put_u32, put_u64
from engine.wire.soupbintcp import LOGIN_REQUEST, PAYLOAD_AT, TYPE_AT

ENTER_AT = 0
REPLACE_AT = 64
CANCEL_AT = 128
HEARTBEAT_AT = 160
LOGOUT_AT = 168
QUERY_AT = 176
LOGIN_AT = 192
OUTBOX_AT = 256
OUTBOX_ORDERS = 16

ENTER_BYTES = PAYLOAD_AT + ENTER_ORDER.length
REPLACE_BYTES = PAYLOAD_AT + REPLACE_ORDER.length
CANCEL_BYTES = PAYLOAD_AT + CANCEL_ORDER.length
HEARTBEAT_BYTES = PAYLOAD_AT
LOGOUT_BYTES = PAYLOAD_AT
QUERY_BYTES = PAYLOAD_AT + ACCOUNT_QUERY.length
LOGIN_BYTES = TYPE_AT + LOGIN_REQUEST.length

# Cancels that the sweep sends at once: the packets of a few segments, so that one system call costs more than writing them.
SWEEP_CANCELS_MAX = 512
SWEEP_AT = OUTBOX_AT + OUTBOX_ORDERS * 64

# The same of OUCH 4.2, whose names are longer.
ENTER_42_BYTES = PAYLOAD_AT + v42.ENTER_ORDER.length
REPLACE_42_BYTES = PAYLOAD_AT + v42.REPLACE_ORDER.length
CANCEL_42_BYTES = PAYLOAD_AT + v42.CANCEL_ORDER.length
WIRE_BYTES = SWEEP_AT + SWEEP_CANCELS_MAX * CANCEL_42_BYTES

# Who answers for an order, in the 14 characters that are ours: the trader, and two digits of its strategy ("TICKPATH  /S07").
TRADER_MAX = 10
STRATEGY_IN_CLIENT_ID = 12

# Where an order's own fields are, from the beginning of its packet.
ENTER_REF = PAYLOAD_AT + ENTER_ORDER["user_ref"]
ENTER_SIDE = PAYLOAD_AT + ENTER_ORDER["side"]
ENTER_QTY = PAYLOAD_AT + ENTER_ORDER["quantity"]
ENTER_SYMBOL = PAYLOAD_AT + ENTER_ORDER["symbol"]
ENTER_PX = PAYLOAD_AT + ENTER_ORDER["px"]
ENTER_TIF = PAYLOAD_AT + ENTER_ORDER["tif"]
ENTER_STRATEGY = PAYLOAD_AT + ENTER_ORDER["client_id"] + STRATEGY_IN_CLIENT_ID

REPLACE_ORIG = PAYLOAD_AT + REPLACE_ORDER["orig_user_ref"]
REPLACE_REF = PAYLOAD_AT + REPLACE_ORDER["user_ref"]
REPLACE_QTY = PAYLOAD_AT + REPLACE_ORDER["quantity"]
REPLACE_PX = PAYLOAD_AT + REPLACE_ORDER["px"]
REPLACE_TIF = PAYLOAD_AT + REPLACE_ORDER["tif"]
REPLACE_STRATEGY = PAYLOAD_AT + REPLACE_ORDER["client_id"] + STRATEGY_IN_CLIENT_ID

CANCEL_REF = PAYLOAD_AT + CANCEL_ORDER["user_ref"]
CANCEL_QTY = PAYLOAD_AT + CANCEL_ORDER["quantity"]

ENTER_42_TOKEN = PAYLOAD_AT + v42.ENTER_ORDER["token"]
ENTER_42_SIDE = PAYLOAD_AT + v42.ENTER_ORDER["side"]
ENTER_42_QTY = PAYLOAD_AT + v42.ENTER_ORDER["quantity"]
ENTER_42_SYMBOL = PAYLOAD_AT + v42.ENTER_ORDER["symbol"]
ENTER_42_PX = PAYLOAD_AT + v42.ENTER_ORDER["px"]
ENTER_42_TIF = PAYLOAD_AT + v42.ENTER_ORDER["tif"]

REPLACE_42_ORIG = PAYLOAD_AT + v42.REPLACE_ORDER["orig_token"]
REPLACE_42_TOKEN = PAYLOAD_AT + v42.REPLACE_ORDER["token"]
REPLACE_42_QTY = PAYLOAD_AT + v42.REPLACE_ORDER["quantity"]
REPLACE_42_PX = PAYLOAD_AT + v42.REPLACE_ORDER["px"]
REPLACE_42_TIF = PAYLOAD_AT + v42.REPLACE_ORDER["tif"]

CANCEL_42_TOKEN = PAYLOAD_AT + v42.CANCEL_ORDER["token"]
CANCEL_42_QTY = PAYLOAD_AT + v42.CANCEL_ORDER["quantity"]

# A template's length, in the second byte of its packet, says which version it is of.
LENGTH_AT = ENTER_AT + 1
ENTER_42_LENGTH = ENTER_42_BYTES - TYPE_AT


@njit(cache=True, _nrt=False, forceinline=True)
def venue_tif(tif):
    if tif == OURS_IOC:
        return TIF_IOC
    return TIF_DAY


@njit(cache=True, _nrt=False, forceinline=True)
def seconds_42(tif):
    if tif == OURS_IOC:
        return np.int64(v42.TIF_IOC)
    return np.int64(v42.TIF_MARKET_HOURS)


@njit(cache=True, _nrt=False, forceinline=True)
def put_strategy(wire, at, strategy):
    """Two digits: there are less than a hundred strategies."""
    wire[at] = 48 + strategy // 10
    wire[at + 1] = 48 + strategy % 10


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def copy_template(wire, template_at, at, size):
    """A template's bytes to wire[at:], in words of eight of which the last two may overlap. size: a constant, at least 8."""
    for word in range((size - 1) >> 3):
        put_raw64(wire, at + 8 * word, get_raw64(wire, template_at + 8 * word))
    put_raw64(wire, at + size - 8, get_raw64(wire, template_at + size - 8))


@njit(cache=True, _nrt=False, forceinline=True)
def speaks_42(wire):
    """Whether the templates are of OUCH 4.2."""
    return wire[LENGTH_AT] == ENTER_42_LENGTH


@njit(cache=True, _nrt=False, forceinline=True)
def encode_enter(wire, at, user_ref, side, qty, symbol, px, tif, strategy):
    """A new order from wire[at] on. Returns how many bytes it has."""
    if speaks_42(wire):
        copy_template(wire, ENTER_AT, at, ENTER_42_BYTES)
        put_token(wire, at + ENTER_42_TOKEN, user_ref, strategy)
        wire[at + ENTER_42_SIDE] = side
        put_u32(wire, at + ENTER_42_QTY, qty)
        put_raw64(wire, at + ENTER_42_SYMBOL, symbol)
        put_u32(wire, at + ENTER_42_PX, px)
        put_u32(wire, at + ENTER_42_TIF, seconds_42(tif))
        return np.int64(ENTER_42_BYTES)
    copy_template(wire, ENTER_AT, at, ENTER_BYTES)
    put_u32(wire, at + ENTER_REF, user_ref)
    wire[at + ENTER_SIDE] = side
    put_u32(wire, at + ENTER_QTY, qty)
    put_raw64(wire, at + ENTER_SYMBOL, symbol)
    put_u64(wire, at + ENTER_PX, px)
    wire[at + ENTER_TIF] = venue_tif(tif)
    put_strategy(wire, at + ENTER_STRATEGY, strategy)
    return np.int64(ENTER_BYTES)


@njit(cache=True, _nrt=False, forceinline=True)
def encode_replace(wire, at, target_ref, target_strategy, user_ref, total_qty, px, tif, strategy):
    """A replace from wire[at] on. total_qty counts what the chain has executed already. Returns how many bytes it has."""
    if speaks_42(wire):
        copy_template(wire, REPLACE_AT, at, REPLACE_42_BYTES)
        put_token(wire, at + REPLACE_42_ORIG, target_ref, target_strategy)
        put_token(wire, at + REPLACE_42_TOKEN, user_ref, strategy)
        put_u32(wire, at + REPLACE_42_QTY, total_qty)
        put_u32(wire, at + REPLACE_42_PX, px)
        put_u32(wire, at + REPLACE_42_TIF, seconds_42(tif))
        return np.int64(REPLACE_42_BYTES)
    copy_template(wire, REPLACE_AT, at, REPLACE_BYTES)
    put_u32(wire, at + REPLACE_ORIG, target_ref)
    put_u32(wire, at + REPLACE_REF, user_ref)
    put_u32(wire, at + REPLACE_QTY, total_qty)
    put_u64(wire, at + REPLACE_PX, px)
    wire[at + REPLACE_TIF] = venue_tif(tif)
    put_strategy(wire, at + REPLACE_STRATEGY, strategy)
    return np.int64(REPLACE_BYTES)


@njit(cache=True, _nrt=False, forceinline=True)
def encode_cancel(wire, at, user_ref, strategy, total_qty):
    """A cancel from wire[at] on. total_qty limits what may execute in all; 0 cancels what is open. Returns how many bytes it has."""
    if speaks_42(wire):
        copy_template(wire, CANCEL_AT, at, CANCEL_42_BYTES)
        put_u32(wire, at + CANCEL_42_QTY, total_qty)
    else:
        copy_template(wire, CANCEL_AT, at, CANCEL_BYTES)
        put_u32(wire, at + CANCEL_QTY, total_qty)
    return name_cancel(wire, at, user_ref, strategy)


@njit(cache=True, _nrt=False, forceinline=True)
def name_cancel(wire, at, user_ref, strategy):
    """Write into the cancel at wire[at:] which order it is about. Returns how many bytes the cancel has."""
    if speaks_42(wire):
        put_token(wire, at + CANCEL_42_TOKEN, user_ref, strategy)
        return np.int64(CANCEL_42_BYTES)
    put_u32(wire, at + CANCEL_REF, user_ref)
    return np.int64(CANCEL_BYTES)
