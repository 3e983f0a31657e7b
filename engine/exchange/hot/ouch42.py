"""Accounts that speak OUCH 4.2: their messages are put into the layout of 5.0 where they come in, and reports back where they go out.

Everything between (matching, the log of what an account was told, latency, faults) knows 5.0 only. What a report says in 4.2 follows from
its message in the log and the account's tokens alone, so a client that comes back hears the same bytes again.

A token is any 14 characters, each accepted once a day: a message with one that was used before is ignored. The tokens of an account are
numbered in the order in which they come, and the number is its order's user_ref here. As many are kept as an account has places for
orders: the oldest are forgotten first, but never one of a live order. They hang in chains by hash, the newest first.
"""

import numpy as np
from numba import njit

from engine.exchange.hot.reports import copy_bytes
from engine.exchange.hot.state import LAST_USER_REF, SPEAKS_42
from engine.gateway.ouch import v42
from engine.gateway.ouch.bridge import (
    END,
    FROM_BYTES,
    NAME_FROM,
    NAME_TO,
    ORDERS_TO_50,
    ORIG_FROM,
    ORIG_TO,
    PLANS,
    REPORTS_TO_42,
    TO_BYTES,
)
from engine.gateway.ouch.hot.translate import translate
from engine.gateway.ouch.v50 import ENTER_ORDER, REPLACE_ORDER
from engine.wire.hot.bytes import get_raw64, get_u32, put_raw64, put_u16, put_u32
from engine.wire.soupbintcp import LENGTH_BYTES, PAYLOAD_AT, TYPE_AT

ENTER_CODE, ENTER_FIRM, ENTER_MINIMUM = v42.ENTER_ORDER.code, v42.ENTER_ORDER["firm"], v42.ENTER_ORDER["quantity_min"]
REPLACE_CODE, REPLACE_MINIMUM = v42.REPLACE_ORDER.code, v42.REPLACE_ORDER["quantity_min"]
CANCEL_CODE = v42.CANCEL_ORDER.code
# Where 5.0 says what 4.2's firm rides in, and the time in force.
ENTER_TIF, REPLACE_TIF, REPLACE_CLIENT_ID = ENTER_ORDER["tif"], REPLACE_ORDER["tif"], REPLACE_ORDER["client_id"]

# A time in force that is none: an order with a minimum quantity is rejected, as there is no such thing here.
NO_TIF = 0
UNKNOWN = np.int64(0)
NOT_A_MESSAGE = 0

# The largest message of 5.0 that a client may send, and the largest packet of 4.2 that it is told.
SCRATCH_BYTES = 64
PACKET_BYTES_MAX = PAYLOAD_AT + v42.REPLACED.length

HASHED = 0x7FFFFFFF
FIRST_BYTES = 8
REST_BYTES = 6


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def rest_of(source, at):
    """The last six bytes of the token at source[at:], in memory order."""
    rest = np.int64(0)
    for byte in range(REST_BYTES):
        rest |= np.int64(source[at + FIRST_BYTES + byte]) << (8 * byte)
    return rest


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def chain_of_token(first, rest, buckets):
    """Where the chain of a token begins. No product passes 2**62."""
    mixed = (first & HASHED) * 0x5851F42D ^ ((first >> 32) & HASHED) * 0x4C957F2D
    mixed ^= (rest & HASHED) * 0x14057B7F ^ (rest >> 32) * 0x7F4A7C15
    return (mixed >> 24) & (buckets - 1)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def find_token(clients, account, first, rest):
    """The number of a token, or UNKNOWN."""
    tokens = clients.tokens[account]
    number = np.int64(clients.chains[account, chain_of_token(first, rest, clients.chains.shape[1])])
    while number != UNKNOWN:
        entry = tokens[number & (tokens.shape[0] - 1)]
        if entry.first == first and entry.rest == rest:
            return number
        number = np.int64(entry.next)
    return UNKNOWN


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def number_of_token(clients, account, source, at):
    """The number of the token at source[at:], or UNKNOWN."""
    return find_token(clients, account, np.int64(get_raw64(source, at)), rest_of(source, at))


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def enlist_token(clients, account, source, at, firm):
    """The number of the token at source[at:]: a new one where it was not used before, an old one where there is no place."""
    first, rest = np.int64(get_raw64(source, at)), rest_of(source, at)
    number = find_token(clients, account, first, rest)
    if number != UNKNOWN:
        return number
    number = next_token_number(clients, account)
    if number == UNKNOWN:
        return clients.words[account, LAST_USER_REF]
    forget_token(clients, account, number)
    bucket = chain_of_token(first, rest, clients.chains.shape[1])
    entry = clients.tokens[account, number & (clients.tokens.shape[1] - 1)]
    entry.first = first
    entry.rest = rest
    entry.firm = firm
    entry.number = number
    entry.next = clients.chains[account, bucket]
    clients.chains[account, bucket] = number
    return number


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def next_token_number(clients, account):
    """The next number whose place has no live order, or UNKNOWN where each has one."""
    number = clients.words[account, LAST_USER_REF] + 1
    for _ in range(clients.table.shape[1]):
        if clients.table[account, number & (clients.table.shape[1] - 1)].handle == 0:
            return number
        number += 1
    return UNKNOWN


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def forget_token(clients, account, number):
    """Take the token that has this number's place, if any, out of its chain."""
    tokens = clients.tokens[account]
    places = tokens.shape[0]
    entry = tokens[number & (places - 1)]
    old = np.int64(entry.number)
    if old == UNKNOWN:
        return
    bucket = chain_of_token(np.int64(entry.first), np.int64(entry.rest), clients.chains.shape[1])
    link = np.int64(clients.chains[account, bucket])
    if link == old:
        clients.chains[account, bucket] = entry.next
        return
    while link != UNKNOWN:
        before = tokens[link & (places - 1)]
        link = np.int64(before.next)
        if link == old:
            before.next = entry.next
            return


@njit(cache=True, _nrt=False)
def take_42(clients, owner, source, at, length):
    """Put the message of 4.2 at source[at:] into the layout of 5.0, where it is: its length, never above the old, or NOT_A_MESSAGE."""
    account = owner - 1
    code = np.int64(source[at]) if length > 0 else np.int64(0)
    if PLANS[ORDERS_TO_50, code, END] == 0 or length != PLANS[ORDERS_TO_50, code, FROM_BYTES]:
        return np.int64(NOT_A_MESSAGE)
    scratch = clients.scratch
    size = PLANS[ORDERS_TO_50, code, TO_BYTES]
    name, to = at + PLANS[ORDERS_TO_50, code, NAME_FROM], PLANS[ORDERS_TO_50, code, NAME_TO]
    translate(ORDERS_TO_50, code, source, at, scratch, np.int64(0))
    if code == CANCEL_CODE:
        put_u32(scratch, to, number_of_token(clients, account, source, name))
    elif code == ENTER_CODE:
        put_u32(scratch, to, enlist_token(clients, account, source, name, get_u32(source, at + ENTER_FIRM)))
        if get_u32(source, at + ENTER_MINIMUM) != 0:
            scratch[ENTER_TIF] = NO_TIF
    else:
        target = number_of_token(clients, account, source, at + PLANS[ORDERS_TO_50, code, ORIG_FROM])
        firm = np.int64(clients.tokens[account, target & (clients.tokens.shape[1] - 1)].firm)
        put_u32(scratch, PLANS[ORDERS_TO_50, code, ORIG_TO], target)
        put_u32(scratch, to, enlist_token(clients, account, source, name, firm))
        put_u32(scratch, np.int64(REPLACE_CLIENT_ID), firm)
        if get_u32(source, at + REPLACE_MINIMUM) != 0:
            scratch[REPLACE_TIF] = NO_TIF
    copy_bytes(source, at, scratch, np.int64(0), size)
    return size


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def put_token_of(clients, account, number, target, at):
    """The token that a client gave an order, as it came."""
    entry = clients.tokens[account, number & (clients.tokens.shape[1] - 1)]
    put_raw64(target, at, np.int64(entry.first))
    for byte in range(REST_BYTES):
        target[at + FIRST_BYTES + byte] = (np.int64(entry.rest) >> (8 * byte)) & 0xFF


@njit(cache=True, _nrt=False)
def put_packet_42(clients, account, log, at, out, to):
    """The log's packet at log[at:] as out[to:] in 4.2. Returns how many bytes it has there."""
    begin, place = at + PAYLOAD_AT, to + PAYLOAD_AT
    code = np.int64(log[begin])
    size = PLANS[REPORTS_TO_42, code, TO_BYTES]
    put_u16(out, to, PAYLOAD_AT - LENGTH_BYTES + size)
    out[to + TYPE_AT] = log[at + TYPE_AT]
    translate(REPORTS_TO_42, code, log, begin, out, place)
    if PLANS[REPORTS_TO_42, code, NAME_FROM] != 0:
        number = get_u32(log, begin + PLANS[REPORTS_TO_42, code, NAME_FROM])
        put_token_of(clients, account, number, out, place + PLANS[REPORTS_TO_42, code, NAME_TO])
    if PLANS[REPORTS_TO_42, code, ORIG_FROM] != 0:
        number = get_u32(log, begin + PLANS[REPORTS_TO_42, code, ORIG_FROM])
        put_token_of(clients, account, number, out, place + PLANS[REPORTS_TO_42, code, ORIG_TO])
    return PAYLOAD_AT + size


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def speaks_42(clients, owner):
    return clients.words[owner - 1, SPEAKS_42] != 0
