"""What can go wrong at a venue, on purpose and by seed: each fault strikes by chance at every occasion, and at the first occasion after
each of its times.

    reject       a new order or a replace is rejected                                          occasion: each of them
    silence      nothing is said on a connection for SILENT_NS, heartbeats included            new reports of an account
    delay        reports are sent DELAYED_NS later than they would be, and those behind them   new reports of an account
    duplicate    an execution is told once more, as a further packet of the sequence           each execution
    disconnect   a connection ends in the middle of what is being said                         new reports of an account
    blackhole    a connection is accepted, and then neither heard nor spoken to                each connection

What an account is told keeps its order, whatever strikes.
"""

import numpy as np
from numba import njit

from engine.exchange.hot.delays import RELEASED, draw_ns, hold_until, release_due
from engine.exchange.hot.flow import uniform
from engine.exchange.hot.reports import EXECUTED_CODE, copy_bytes
from engine.exchange.hot.state import (
    CUT,
    DELAYED_NS,
    ENTRY_OFF,
    HOLDING,
    LINK,
    LOG_SLOT_BYTES,
    LOGGED,
    SILENT_NS,
    SILENT_UNTIL_NS,
    STARTED_NS,
    STRIKING,
    TOLD,
)
from engine.gateway.ouch.v50 import ENTER_ORDER, REPLACE_ORDER
from engine.wire.soupbintcp import PAYLOAD_AT, TYPE_AT, UNSEQUENCED

REJECT = np.int64(0)
SILENCE = np.int64(1)
DELAY = np.int64(2)
DUPLICATE = np.int64(3)
DISCONNECT = np.int64(4)
BLACKHOLE = np.int64(5)
FAULTS = 6

NEVER_NS = (1 << 63) - 1

# A bit of ENTRY_OFF beside the one that clients set: the order that is being handled is to be rejected.
REFUSED_BY_FAULT = 2

ENTER_CODE, REPLACE_CODE = ENTER_ORDER.code, REPLACE_ORDER.code


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def strikes(conduct, fault, stats, now_ns):
    """Whether a fault strikes at this occasion."""
    if conduct.words[STRIKING] == 0:
        return False
    due = conduct.times[fault, conduct.struck_at[fault]]
    if due != NEVER_NS and now_ns - conduct.words[STARTED_NS] >= due:
        conduct.struck_at[fault] += 1
    elif conduct.rates[fault] == 0.0 or uniform(conduct.fault_random) >= conduct.rates[fault]:
        return False
    conduct.struck[fault] += 1
    stats[0].faults += 1
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def choose_rejection(conduct, account, stats, inbound, at, size, now_ns):
    """Whether the packet at inbound[at:], where it is a new order or a replace, is to be rejected; noted in the account's words."""
    account[ENTRY_OFF] &= ~REFUSED_BY_FAULT
    if size <= PAYLOAD_AT or inbound[at + TYPE_AT] != UNSEQUENCED:
        return
    code = inbound[at + PAYLOAD_AT]
    if code in (ENTER_CODE, REPLACE_CODE) and strikes(conduct, REJECT, stats, now_ns):
        account[ENTRY_OFF] |= REFUSED_BY_FAULT


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def retell_executions(conduct, clients, number, stats, now_ns):
    """Put some of an account's new executions into its log once more, behind everything else."""
    account, log = clients.words[number], clients.log[number]
    slots = log.shape[0] // LOG_SLOT_BYTES
    for told in range(account[TOLD], account[LOGGED]):
        at = (told % slots) * LOG_SLOT_BYTES
        if log[at + PAYLOAD_AT] == EXECUTED_CODE and strikes(conduct, DUPLICATE, stats, now_ns):
            copy_bytes(log, (account[LOGGED] % slots) * LOG_SLOT_BYTES, log, at, LOG_SLOT_BYTES)
            account[LOGGED] += 1
            stats[0].reports += 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def hold_reports(conduct, clients, links, stats, now_ns):
    """Let what is new in each account's log pass through latency and faults: until it is released it is not sent."""
    for number in range(clients.words.shape[0]):
        account, line = clients.words[number], conduct.report_lines[number]
        if account[LOGGED] != account[TOLD]:
            retell_executions(conduct, clients, number, stats, now_ns)
            due_ns = now_ns + draw_ns(conduct.reports_ns, conduct.random)
            if strikes(conduct, DELAY, stats, now_ns):
                due_ns += conduct.words[DELAYED_NS]
            hold_until(line, account[LOGGED], due_ns)
            account[TOLD] = account[LOGGED]
            if account[LINK] != 0:
                link = links.words[account[LINK] - 1]
                if strikes(conduct, SILENCE, stats, now_ns):
                    link[SILENT_UNTIL_NS] = now_ns + conduct.words[SILENT_NS]
                if strikes(conduct, DISCONNECT, stats, now_ns):
                    link[CUT] = 1
        release_due(line, now_ns)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def bytes_before_cut(conduct, size):
    """How many bytes of `size`, above 1, are still sent before a connection is cut: at least 1, and not all."""
    return 1 + int(uniform(conduct.fault_random) * (size - 1))


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def told_up_to(conduct, number, logged):
    """How far into its log an account may be told now."""
    return conduct.report_lines[number, RELEASED] if conduct.words[HOLDING] != 0 else logged
