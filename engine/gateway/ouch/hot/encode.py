"""Orders as OUCH in SoupBinTCP packets: templates filled by engine/gateway/stage.py, of which an order writes only what is its own.

    wire   0 enter order   64 replace order   128 cancel order   160 client heartbeat   192 login request
         256 cancel orders of the sweep, one behind the other

Nothing touches a template while part of it is still to be sent (PENDING_BYTES), so what is kept for later needs no copy.
"""

from numba import njit

from engine.gateway.ouch.v50 import CANCEL_ORDER, ENTER_ORDER, REPLACE_ORDER, TIF_DAY, TIF_IOC
from engine.layout import TIF_IOC as OURS_IOC
from engine.wire.hot.bytes import put_raw64, put_u32, put_u64
from engine.wire.soupbintcp import LOGIN_REQUEST, PAYLOAD_AT, TYPE_AT

ENTER_AT = 0
REPLACE_AT = 64
CANCEL_AT = 128
HEARTBEAT_AT = 160
LOGIN_AT = 192
SWEEP_AT = 256

ENTER_BYTES = PAYLOAD_AT + ENTER_ORDER.length
REPLACE_BYTES = PAYLOAD_AT + REPLACE_ORDER.length
CANCEL_BYTES = PAYLOAD_AT + CANCEL_ORDER.length
HEARTBEAT_BYTES = PAYLOAD_AT
LOGIN_BYTES = TYPE_AT + LOGIN_REQUEST.length

# Cancels that the sweep sends at once: the packets of a few segments, so that one system call costs more than writing them.
SWEEP_CANCELS_MAX = 512
WIRE_BYTES = SWEEP_AT + SWEEP_CANCELS_MAX * CANCEL_BYTES

# Who answers for an order, in the 14 characters that are ours: the trader, and two digits of its strategy ("TICKPATH  /S07").
TRADER_MAX = 10
STRATEGY_IN_CLIENT_ID = 12

_ENTER = ENTER_AT + PAYLOAD_AT
ENTER_REF = _ENTER + ENTER_ORDER["user_ref"]
ENTER_SIDE = _ENTER + ENTER_ORDER["side"]
ENTER_QTY = _ENTER + ENTER_ORDER["quantity"]
ENTER_SYMBOL = _ENTER + ENTER_ORDER["symbol"]
ENTER_PX = _ENTER + ENTER_ORDER["px"]
ENTER_TIF = _ENTER + ENTER_ORDER["tif"]
ENTER_STRATEGY = _ENTER + ENTER_ORDER["client_id"] + STRATEGY_IN_CLIENT_ID

_REPLACE = REPLACE_AT + PAYLOAD_AT
REPLACE_ORIG = _REPLACE + REPLACE_ORDER["orig_user_ref"]
REPLACE_REF = _REPLACE + REPLACE_ORDER["user_ref"]
REPLACE_QTY = _REPLACE + REPLACE_ORDER["quantity"]
REPLACE_PX = _REPLACE + REPLACE_ORDER["px"]
REPLACE_TIF = _REPLACE + REPLACE_ORDER["tif"]
REPLACE_STRATEGY = _REPLACE + REPLACE_ORDER["client_id"] + STRATEGY_IN_CLIENT_ID

_CANCEL = CANCEL_AT + PAYLOAD_AT
CANCEL_REF = _CANCEL + CANCEL_ORDER["user_ref"]
CANCEL_QTY = _CANCEL + CANCEL_ORDER["quantity"]


@njit(cache=True, _nrt=False, forceinline=True)
def venue_tif(tif):
    if tif == OURS_IOC:
        return TIF_IOC
    return TIF_DAY


@njit(cache=True, _nrt=False, forceinline=True)
def put_strategy(wire, at, strategy):
    """Two digits: there are less than a hundred strategies."""
    wire[at] = 48 + strategy // 10
    wire[at + 1] = 48 + strategy % 10


@njit(cache=True, _nrt=False, forceinline=True)
def encode_enter(wire, user_ref, side, qty, symbol, px, tif, strategy):
    """A new order into its template, wire[ENTER_AT:][:ENTER_BYTES]."""
    put_u32(wire, ENTER_REF, user_ref)
    wire[ENTER_SIDE] = side
    put_u32(wire, ENTER_QTY, qty)
    put_raw64(wire, ENTER_SYMBOL, symbol)
    put_u64(wire, ENTER_PX, px)
    wire[ENTER_TIF] = venue_tif(tif)
    put_strategy(wire, ENTER_STRATEGY, strategy)


@njit(cache=True, _nrt=False, forceinline=True)
def encode_replace(wire, target_ref, user_ref, total_qty, px, tif, strategy):
    """A replace into wire[REPLACE_AT:][:REPLACE_BYTES]. total_qty counts what the chain has executed already."""
    put_u32(wire, REPLACE_ORIG, target_ref)
    put_u32(wire, REPLACE_REF, user_ref)
    put_u32(wire, REPLACE_QTY, total_qty)
    put_u64(wire, REPLACE_PX, px)
    wire[REPLACE_TIF] = venue_tif(tif)
    put_strategy(wire, REPLACE_STRATEGY, strategy)


@njit(cache=True, _nrt=False, forceinline=True)
def encode_cancel(wire, user_ref, total_qty):
    """A cancel into wire[CANCEL_AT:][:CANCEL_BYTES]. total_qty limits what may execute in all; 0 cancels what is open."""
    put_u32(wire, CANCEL_REF, user_ref)
    put_u32(wire, CANCEL_QTY, total_qty)
