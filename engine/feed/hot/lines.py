"""What each line brought of the venue's numbers, and what it did not.

A line that goes on where it stopped costs one comparison. Where it jumps ahead, the numbers it passed over are its loss, and are noted
as a range; where it comes back, what falls into such a range is no loss after all, and the rest it has repeated.
"""

from numba import njit

from engine.feed.hot.state import MISSING_MAX
from shm.atomics import wrap_add, wrap_sub


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def note_numbers(feed, line, sequence, count):
    """A line has brought `count` messages from `sequence` on; with none it has said that `sequence` is the next."""
    row = feed.lines[line]
    row.messages += count
    if row.next == sequence:
        row.next = wrap_add(sequence, count)
    else:
        note_jump(feed, line, sequence, count)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def note_jump(feed, line, sequence, count):
    row = feed.lines[line]
    ahead = wrap_sub(sequence, row.next)
    if ahead > 0:
        row.gaps += 1
        row.lost += ahead
        add_range(feed.missing, line, row.next, sequence)
        row.next = wrap_add(sequence, count)
    else:
        again = min(count, -ahead)
        found = take_range(feed.missing, line, sequence, wrap_add(sequence, again))
        row.lost -= found
        row.repeated += again - found
        if count > again:
            row.next = wrap_add(sequence, count)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_back(feed, line, end, count):
    """A packet that was noted did not hold the last `count` of its messages, those before `end`: its line has not brought them."""
    row = feed.lines[line]
    row.messages -= count
    if row.next == end:
        row.next = wrap_sub(end, count)
    elif count:
        row.lost += count
        add_range(feed.missing, line, wrap_sub(end, count), end)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def add_range(missing, line, begin, end):
    """Note a range as missing. Where there is no room the oldest is forgotten: it stays lost, even if it comes after all."""
    first = line * MISSING_MAX * 2
    for entry in range(MISSING_MAX):
        at = first + 2 * entry
        if missing[at] == missing[at + 1]:
            missing[at] = begin
            missing[at + 1] = end
            return
    for at in range(first, first + 2 * (MISSING_MAX - 1)):
        missing[at] = missing[at + 2]
    missing[first + 2 * (MISSING_MAX - 1)] = begin
    missing[first + 2 * (MISSING_MAX - 1) + 1] = end


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_range(missing, line, begin, end):
    """Take the numbers from `begin` to before `end` out of what is missing: how many of them were."""
    found = 0
    first = line * MISSING_MAX * 2
    for entry in range(MISSING_MAX):
        at = first + 2 * entry
        low = missing[at] if wrap_sub(missing[at], begin) > 0 else begin
        high = missing[at + 1] if wrap_sub(missing[at + 1], end) < 0 else end
        overlap = wrap_sub(high, low)
        if missing[at] == missing[at + 1] or overlap <= 0:
            continue
        found += overlap
        rest = missing[at + 1]
        missing[at + 1] = low
        if low == missing[at]:
            missing[at] = high
            missing[at + 1] = rest
        elif high != rest:
            add_range(missing, line, high, rest)
    return found


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def forget_lines(feed, sequence):
    """A new session: every line begins again, at `sequence`."""
    for line in range(feed.lines.shape[0]):
        feed.lines[line].next = sequence
    for at in range(feed.missing.shape[0]):
        feed.missing[at] = 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def forget_counts(feed):
    """What was counted so far was of no session: packets that brought it are foreign."""
    for line in range(feed.lines.shape[0]):
        row = feed.lines[line]
        row.foreign += row.messages
        row.messages = 0
        row.first = 0
        row.duplicates = 0
        row.repeated = 0
        row.gaps = 0
        row.lost = 0
