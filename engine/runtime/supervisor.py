"""Starts the processes of an instance, watches them, and ends the run so that nothing is lost and nothing is left behind."""

import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from engine.book.book import make_book
from engine.layout import (
    IDLE_SLEEP,
    PHASE_DRAINING,
    PHASE_STARTING,
    PHASE_STOPPED,
    PHASE_TRADING,
    STATE_ENDED,
    STATE_LOOPING,
    STATE_READY,
)
from engine.runtime import open_orders, process, standing
from engine.runtime.alerts import Alerts
from engine.runtime.clock import Calibration
from engine.runtime.config import Config, publishes
from engine.runtime.instance import Instance
from engine.runtime.keeper import Keeper
from engine.runtime.logins import Logins
from engine.runtime.placement import Place
from engine.runtime.stages import Run
from engine.runtime.tripwires import Tripwires

TICK_S = 0.02
# After one process is found dead, the time for those it takes along to die too.
GRIEF_S = 0.1
SESSION_PATIENCE_S = 20.0
DRAIN_PATIENCE_S = 5.0
EXIT_PATIENCE_S = 5.0
# A loop stamps its heartbeat every turn. On a shared core a turn may come late; this is beyond any scheduler.
HUNG_AFTER_S = 10.0
# Long enough for a busy box, and short enough to be told of within five seconds (RTS 6, article 16(5)).
SILENT_AFTER_S = 3.0
ALERT_PATIENCE_S = 1.0
OPEN_AT_VENUE = "orders may be open at the venue"


@dataclass
class Child:
    place: Place
    slot: int
    pid: int
    errors_fd: int
    notes_fd: int
    status: int | None = None
    said: bytes = b""

    @property
    def was_killed(self) -> bool:
        return self.status is not None and os.WIFSIGNALED(self.status)

    @property
    def misused(self) -> bool:
        """Whether it ended because of what the user asked for."""
        return self.status is not None and os.WIFEXITED(self.status) and os.WEXITSTATUS(self.status) == process.EXIT_MISUSE

    @property
    def ending(self) -> str:
        """How it ended, as a phrase."""
        if self.status is None:
            return "is running"
        if os.WIFSIGNALED(self.status):
            return f"was killed by signal {os.WTERMSIG(self.status)} ({signal.Signals(os.WTERMSIG(self.status)).name})"
        return f"ended with code {os.WEXITSTATUS(self.status)}"


@dataclass
class Outcome:
    """Why the run ended, and the exit code that follows from it."""

    why: str = ""
    code: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Supervisor:
    """`run` does it all; `show` is called a few times a second with the time traded so far."""

    def __init__(
        self, config: Config, instance: Instance, calibration: Calibration, places: list[Place], midnight_ns: int, logins: Logins
    ) -> None:
        self.config = config
        self.instance = instance
        self.calibration = calibration
        self.places = places
        self.midnight_ns = midnight_ns
        self.logins = logins
        self.children: list[Child] = []
        self.outcome = Outcome()
        self.signals: list[int] = []
        self.keeper = Keeper(instance)
        self.alerts = Alerts(config.instance, config.kill.alert_command)
        self.wires = Tripwires(config, instance, self.alerts, time.monotonic)
        self.silent: set[int] = set()
        self.decided = len(standing.decisions(config.instance))
        self.traded = False
        self.traded_s = 0.0

    def run(self, show: Callable[["Supervisor"], None], *, trade: bool = True) -> Outcome:
        """Start, trade, drain, stop. With trade=False: only start and stop, which compiles every kernel."""
        previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        own_cpus = os.sched_getaffinity(0)
        try:
            self._fork_all()
            self._make_way()
            if self._wait_until_looping(show) and trade and self._wait_for_session(show):
                self._trade(show)
                self._drain(show)
        finally:
            self.stop()
            os.sched_setaffinity(0, own_cpus)
            for number, handler in previous.items():
                signal.signal(number, handler)
        return self.outcome

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)

    def _phase(self, phase: int) -> None:
        self.instance.control.records["phase"][0] = phase

    def _fork_all(self) -> None:
        self._phase(PHASE_STARTING)
        record = self.instance.control.records
        record["tsc_hz"][0] = self.calibration.hz
        record["supervisor_pid"][0] = os.getpid()
        record["started_ns"][0] = time.time_ns()
        feed = self.config.feed
        # Shared by inheritance: the feed handler keeps the books, strategies ask them.
        book = make_book(orders_max=feed.orders_max, levels_max=feed.levels_max, shared=True)
        run = Run(self.config, self.instance, self.calibration, self.midnight_ns, book, self.logins)
        for slot, place in enumerate(self.places):
            errors, notes = os.pipe(), os.pipe()
            supervisor = os.getpid()
            pid = os.fork()
            if pid == 0:
                os.close(errors[0])
                os.close(notes[0])
                process.start(run, slot, place, process.Words(errors[1], notes[1]), supervisor)
            os.close(errors[1])
            os.close(notes[1])
            self.children.append(Child(place, slot, pid, errors[0], notes[0]))
        self.logins.close()

    def _make_way(self) -> None:
        """Stay off the CPUs of the processes that never sleep, if another is left, and off those at FIFO anyhow."""
        own = os.sched_getaffinity(0)
        restless = [place for place in self.places if place.idle != IDLE_SLEEP]
        for taken in ({place.cpu for place in restless}, {place.cpu for place in restless if place.fifo}):
            if own - taken:
                os.sched_setaffinity(0, own - taken)
                return

    def _wait_until_looping(self, show: Callable[["Supervisor"], None]) -> bool:
        """Until every process runs its loop; the first start compiles here, so there is no time limit but a signal."""
        while not all(self._state(child) == STATE_LOOPING for child in self.children):
            if self._over(show):
                return False
        return True

    def _wait_for_session(self, show: Callable[["Supervisor"], None]) -> bool:
        deadline = time.monotonic() + SESSION_PATIENCE_S
        while not self.instance.control.records["session_up"][0]:
            if self._over(show):
                return False
            if time.monotonic() > deadline:
                self._fail(f"gateway.address={self.config.gateway.address}: no login accepted within {SESSION_PATIENCE_S:.0f} s")
                return False
        return True

    def _trade(self, show: Callable[["Supervisor"], None]) -> None:
        started = time.monotonic()
        self.traded = True
        self._phase(PHASE_TRADING)
        while not self._over(show):
            self.traded_s = time.monotonic() - started
            if self.config.seconds and self.traded_s >= self.config.seconds:
                self.outcome.why = f"{self.config.seconds:g} s are over"
                return
            if self._flow_ended():
                self.outcome.why = "the flow has ended"
                return

    def _flow_ended(self) -> bool:
        record = self.instance.control.records
        return bool(record["flow_done"][0] and self._caught_up()) or bool(record["feed_ended"][0])

    def _caught_up(self) -> bool:
        record = self.instance.control.records
        return self.config.feed.source != "udp" or int(record["feed_sequence"][0]) >= int(record["published"][0])

    def _drain(self, show: Callable[["Supervisor"], None]) -> None:
        """No new orders; open ones are cancelled; the exchange's end of session tells the feed that nothing is missing."""
        self._phase(PHASE_DRAINING)
        deadline = time.monotonic() + DRAIN_PATIENCE_S
        while not self._drained():
            self._watch()
            if self._dead() or time.monotonic() > deadline:
                break
            time.sleep(TICK_S)
        else:
            return
        if not self._dead():
            self._fail(f"not everything was settled within {DRAIN_PATIENCE_S:.0f} s: {OPEN_AT_VENUE}")

    def _drained(self) -> bool:
        record = self.instance.control.records
        settled = bool(record["drained"][0])
        if publishes(self.config):
            settled = settled and bool(record["feed_ended"][0])
        return settled and not any(self._backlogs().values())

    def _backlogs(self) -> dict[str, int]:
        rings = {"ticks": self.instance.ticks, "orders": self.instance.orders, "reports": self.instance.reports}
        if self.instance.market is not None:
            rings["market"] = self.instance.market
        return {name: sum(ring.backlog().values()) for name, ring in rings.items()}

    def _over(self, show: Callable[["Supervisor"], None]) -> bool:
        """Whether the run must end now: a signal, or a process that died or hangs. Otherwise waits a moment."""
        show(self)
        self._watch()
        if self.signals:
            self.outcome.why = f"{signal.Signals(self.signals[0]).name} received"
            return True
        if self._dead():
            self._blame()
            return True
        if hung := self._hung(HUNG_AFTER_S):
            self._fail(f"{hung.place.name} (pid {hung.pid}) hangs: no heartbeat for {HUNG_AFTER_S:.0f} s")
            self._pull(self.outcome.failures[-1])
            self._name_what_is_open([hung])
            return True
        time.sleep(TICK_S)
        return False

    def _watch(self) -> None:
        """Keep what the gate decided, pull the switch where it must be, and tell of both."""
        known = len(self.keeper.notes)
        self.keeper.look()
        for note in self.keeper.notes[known:]:
            self.alerts.say(note)
        self.wires.look()
        silent = self._hung(SILENT_AFTER_S)
        if silent is not None and silent.pid not in self.silent:
            self.silent.add(silent.pid)
            self.alerts.say(f"{silent.place.name} (pid {silent.pid}) has been silent for {SILENT_AFTER_S:.0f} s")

    def _pull(self, reason: str) -> None:
        """A process is dead or hangs: nothing starts again until a person has looked, unless the config says otherwise."""
        if not self.traded:
            return
        if self.config.kill.on_death == "kill":
            self.wires.pull(f"{reason} (kill.on_death)")
        else:
            self.alerts.say(reason)

    def _name_what_is_open(self, gone: list[Child]) -> None:
        """With a gateway that is dead or hangs nobody else knows what it had open; its table stays as it left it."""
        if self.traded and any("gateway" in child.place.stages for child in gone) and (found := self.open_orders()).orders:
            self.alerts.say(f"{OPEN_AT_VENUE}: {'; '.join(found.sentences())}")

    def open_orders(self) -> open_orders.OpenOrders:
        """What may be open at the venue, by the gateway's own table."""
        shared = self.instance
        return open_orders.read(shared.open_orders, shared.instruments, now_tsc=process.lib.tp_rdtsc(), tsc_hz=self.calibration.hz)

    def _state(self, child: Child) -> int:
        return int(self.instance.processes.records[child.slot]["state"])

    def _dead(self) -> bool:
        """Reap what has ended; whether any child has."""
        for child in self.children:
            if child.status is None:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    child.status = status
        return any(child.status is not None for child in self.children)

    def _hung(self, after_s: float) -> Child | None:
        now_tsc = process.lib.tp_rdtsc()
        for child in self.children:
            line = self.instance.processes.records[child.slot]
            silent_s = (now_tsc - int(line["heartbeat_tsc"])) / self.calibration.hz
            if line["state"] == STATE_LOOPING and int(line["heartbeat_tsc"]) and silent_s > after_s:
                return child
        return None

    def _blame(self) -> None:
        """Name every process that is dead. One death brings others (a venue's, the gateway's): what was killed comes first."""
        time.sleep(GRIEF_S)
        self._dead()
        dead = sorted((child for child in self.children if child.status is not None), key=lambda child: not child.was_killed)
        for child in dead:
            said = self._said(child)
            self._fail(f"{child.place.name} (pid {child.pid}) {child.ending}" + (f": {said}" if said else ""))
        if all(child.misused for child in dead):
            self.outcome.code = process.EXIT_MISUSE
            self.outcome.failures = [self._said(child) for child in dead]
        self._pull("; ".join(self.outcome.failures))
        self._name_what_is_open(dead)
        # Whoever died, the open orders must not outlive the run: while the gateway lives it cancels them.
        if self.traded and not any("gateway" in child.place.stages for child in dead):
            self._phase(PHASE_DRAINING)
            self._wait_for_gateway()

    def _wait_for_gateway(self) -> None:
        deadline = time.monotonic() + 1.0
        while not self.instance.control.records["drained"][0] and time.monotonic() < deadline:
            time.sleep(TICK_S)

    def _said(self, child: Child) -> str:
        child.said += _read_out(child.errors_fd)
        return child.said.decode("utf-8", "replace").strip()

    def _fail(self, sentence: str) -> None:
        self.outcome.code = process.EXIT_FAILED
        self.outcome.why = self.outcome.why or "stopped by a failure"
        self.outcome.failures.append(sentence)

    def stop(self) -> None:
        """STOPPED for all, then reap; whoever does not go is killed, and named."""
        self._phase(PHASE_STOPPED)
        for child in self.children:
            # Nobody can interrupt a compiler, and a process that has not begun has nothing to settle.
            if child.status is None and self._state(child) < STATE_READY:
                os.kill(child.pid, signal.SIGKILL)
        deadline = time.monotonic() + EXIT_PATIENCE_S
        while any(child.status is None for child in self.children):
            self._dead()
            if time.monotonic() > deadline:
                self._kill_rest()
                break
            time.sleep(0.005)
        for child in self.children:
            said = self._said(child)
            if said and not any(said in failure for failure in self.outcome.failures) and self._state(child) != STATE_ENDED:
                self.outcome.failures.append(f"{child.place.name}: {said}")
            os.close(child.errors_fd)
        if self.traded and (count := int(self.instance.gateway_stats.records[0]["open_orders"])):
            self._fail(f"{count:,} {OPEN_AT_VENUE}: {'; '.join(self.open_orders().sentences())}")
        self._watch()
        self.alerts.settle(ALERT_PATIENCE_S)
        self.outcome.notes += self._notes() + self.keeper.notes + self.wires.troubles + self.alerts.troubles

    def _notes(self) -> list[str]:
        """What the children noted, each sentence once, with the names of those it is about."""
        about: dict[str, list[str]] = {}
        for child in self.children:
            for sentence in _read_out(child.notes_fd).decode("utf-8", "replace").splitlines():
                about.setdefault(sentence, []).append(child.place.name)
            os.close(child.notes_fd)
        return [f"{', '.join(names)}: {sentence}" for sentence, names in about.items()]

    def _kill_rest(self) -> None:
        for child in self.children:
            if child.status is None:
                os.kill(child.pid, signal.SIGKILL)
                _, child.status = os.waitpid(child.pid, 0)
                self._fail(f"{child.place.name} (pid {child.pid}) did not stop within {EXIT_PATIENCE_S:.0f} s and was killed")


def _read_out(fd: int) -> bytes:
    """What has been written into a pipe so far."""
    said = b""
    while select.select([fd], [], [], 0)[0]:
        piece = os.read(fd, 65_536)
        if not piece:
            break
        said += piece
    return said
