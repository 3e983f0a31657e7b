"""What a process does when its supervisor dies: nothing new is sent, what is open is cancelled, and nothing starts again unseen.

All processes of the instance find out at the same time, and go on turning until the gateway has settled, or for a bounded time. The
gateway's pulls the kill switch, for nobody else is left to do it, and names on standard error what may still be open.
"""

import sys
import time
from collections.abc import Callable, Sequence

from engine.layout import PHASE_DRAINING, PHASE_TRADING
from engine.runtime import kills, open_orders
from engine.runtime.hot import STOPPED, TIME_UP
from engine.runtime.latch import WHOLE
from engine.runtime.stages import Run
from shm._shim import lib

PATIENCE_S = 2.0
TURN_S = 0.005


def settle(run: Run, stages: Sequence[str], turn: Callable[[int], int], reason: int) -> int:
    """Turn on until nothing of ours is open. Returns what the loop is left with: STOPPED, or the reason that ended it before."""
    control = run.instance.control.records[0]
    if reason < 0 or control["phase"] not in (PHASE_TRADING, PHASE_DRAINING):
        return reason
    if "gateway" in stages:
        # Only here: another process that drained first would take the gateway's reason to kill away.
        if control["phase"] == PHASE_TRADING:
            _kill(run)
        control["phase"] = PHASE_DRAINING
    turn_ticks = int(TURN_S * run.calibration.hz)
    deadline = time.monotonic() + PATIENCE_S
    reason = TIME_UP
    while reason == TIME_UP and not control["drained"] and time.monotonic() < deadline:
        reason = turn(lib.tp_rdtsc() + turn_ticks)
    return STOPPED if reason == TIME_UP else reason


def _kill(run: Run) -> None:
    why = f"the supervisor (pid {int(run.instance.control.records[0]['supervisor_pid'])}) died"
    said = f"{why}: no new order is sent, and what is open is being cancelled"
    if run.config.kill.on_death == "kill":
        try:
            kills.kill(run.instance.control, run.config.instance, WHOLE, f"{why} (kill.on_death)", "tickpath")
            said += f"; `tickpath arm --instance {run.config.instance}` lets it start again"
        except (OSError, ValueError) as error:
            said += f"; the kill could not be kept for the next start: {error}"
    _tell(run.config.instance, said)


def name_what_is_open(run: Run, stages: Sequence[str]) -> None:
    """On standard error: nobody is left to write a report."""
    if "gateway" in stages:
        shared = run.instance
        found = open_orders.read(shared.open_orders, shared.instruments, now_tsc=lib.tp_rdtsc(), tsc_hz=run.calibration.hz)
        for sentence in found.sentences():
            _tell("open", sentence)


def _tell(about: str, sentence: str) -> None:
    try:
        sys.stderr.write(f"ALERT {time.strftime('%Y-%m-%d %H:%M:%S %z')} {about}: {sentence}\n")
        sys.stderr.flush()
    except OSError:
        pass
