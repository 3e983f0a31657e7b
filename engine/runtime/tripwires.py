"""What pulls the kill switch without a person: losses, a feed that is not proven, a lost session, a position that differs, a dead process.

The supervisor looks every tick (20 ms), so what it sees is told and acted on well within the five seconds that RTS 6 (article 16(5)) gives.
Each wire pulls once: armed by a person it waits for its condition to begin, or to last, anew.
"""

from collections.abc import Callable, Iterator

import numpy as np

from engine.layout import BOOK_GAPPED, BOOK_STALE, PHASE_TRADING, pack_symbol, unpack_symbol
from engine.risk.sentences import SENTENCES
from engine.runtime import kills, latch
from engine.runtime.accounts import Accounts
from engine.runtime.alerts import Alerts
from engine.runtime.config import Config
from engine.runtime.instance import Instance
from engine.runtime.latch import WHOLE

BY = "tickpath"


class Tripwires:
    """`look` is called every tick with the time; `troubles` are sentences about what could not be written down."""

    def __init__(self, config: Config, shared: Instance, alerts: Alerts, clock: Callable[[], float]) -> None:
        self.config = config.kill
        self.shared = shared
        self.alerts = alerts
        self.clock = clock
        self.symbols = {pack_symbol(symbol) for symbol in config.strategy.symbols}
        self.troubles: list[str] = []
        self.since: dict[str, float] = {}
        self.pulled: set[str] = set()
        self.killed = False
        self.kills_seen = int(shared.control.records[0]["kills"])
        self.named: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))
        # A venue of somebody else's has no account that we could look into.
        self.accounts = Accounts(shared.positions, shared.exchange_positions, clock) if config.exchange is not None else None

    def look(self) -> None:
        """Pull the switch where a wire was touched, and say what others have done with it."""
        self._tell_kills()
        if int(self.shared.control.records[0]["phase"]) != PHASE_TRADING:
            self.since.clear()
            return
        touched = dict(self._touched())
        for wire in [*self.pulled - touched.keys()]:
            self.pulled.discard(wire)
        for wire, reason in touched.items():
            if wire not in self.pulled:
                self.pulled.add(wire)
                if wire.startswith("position") and self.config.on_mismatch == "alert":
                    self.alerts.say(reason)
                else:
                    self.pull(reason)

    def pull(self, reason: str) -> None:
        """Kill everything, latched and logged, and say so. One that is killed already stays killed for its first reason."""
        control = self.shared.control
        if control.records[0]["kill"]:
            self.alerts.say(f"{reason} (it is killed already)")
            return
        try:
            kills.kill(control, self.shared.name, WHOLE, reason, BY)
        except (OSError, ValueError) as error:
            self.troubles.append(f"kill: it holds in this run but could not be kept for the next start: {error}")
        self._tell_kills()

    def _touched(self) -> Iterator[tuple[str, str]]:
        """Every wire that is touched now, with the reason to give."""
        yield from self._loss()
        record = self.shared.control.records[0]
        if self._lasts("session", not record["session_up"], self.config.session_down_ms):
            yield "session", f"the session with the venue was down for {self.config.session_down_ms} ms (kill.session_down_ms)"
        unproven = self._unproven()
        if self._lasts("feed", bool(unproven), self.config.stale_ms):
            named = ", ".join(unproven)
            yield "feed", f"the books of {named} were stale or gapped for {self.config.stale_ms} ms (kill.stale_ms)"
        yield from self._mismatches(bool(record["session_up"]))

    def _loss(self) -> Iterator[tuple[str, str]]:
        facts, rules = self.shared.facts.records[0], self.shared.rules.records[0]
        if self.config.on_loss == "kill" and int(facts["trips"]) > int(rules["trip_cleared"]):
            why = SENTENCES.get(int(facts["trip_reason"]), "a limit of losses was passed").split(":")[0]
            yield f"loss {int(facts['trips'])}", f"{why} (kill.on_loss)"

    def _mismatches(self, session_up: bool) -> Iterator[tuple[str, str]]:
        if strange := int(self.shared.gateway_stats.records[0]["unknown_executions"]):
            yield f"position {strange}", f"executions={strange} of orders that are not ours were told by the venue (kill.on_mismatch)"
        if self.accounts is None:
            return
        if not session_up:
            self.accounts.forget()
            return
        for instrument, told in self.accounts.differing(self._traded()).items():
            symbol = self._symbol(instrument)
            yield f"position {symbol}", f"{symbol}: {told} (kill.on_mismatch)"

    def _lasts(self, wire: str, is_so: bool, ms: int) -> bool:
        """Whether a condition has held for so long; 0 ms switches the wire off. Said once when it begins: an alert, not yet a kill."""
        if not is_so:
            self.since.pop(wire, None)
            return False
        if wire not in self.since:
            self.since[wire] = self.clock()
            self.alerts.say(BEGINNINGS[wire])
        return ms > 0 and self.clock() - self.since[wire] >= ms / 1e3

    def _unproven(self) -> list[str]:
        """Traded symbols whose book is stale or gapped."""
        traded = self._traded()
        lines = self.shared.symbols.records[traded]
        return [self._symbol(index) for index in traded[(lines["validity"] & (BOOK_STALE | BOOK_GAPPED)) != 0]]

    def _traded(self) -> np.ndarray:
        """The numbers of the traded instruments that the feed has named."""
        count = int(self.shared.feed_stats.records[0]["instruments"])
        if count != self.named[0]:
            known = np.flatnonzero(np.isin(self.shared.instruments.records["symbol"], list(self.symbols)))
            self.named = (count, known)
        return self.named[1]

    def _symbol(self, instrument: int) -> str:
        return unpack_symbol(int(self.shared.instruments.records[instrument]["symbol"]))

    def _tell_kills(self) -> None:
        """A kill, whoever made it, and that it is over."""
        record = self.shared.control.records[0]
        if (number := int(record["kills"])) != self.kills_seen:
            self.kills_seen = number
            reason = bytes(record["kill_reason"]).rstrip(b"\0").decode("utf-8", "replace")
            scopes = "; ".join(str(scope) for scope in kills.held(self.shared.control))
            self.alerts.say(f"KILLED ({scopes}): {reason}; `tickpath arm --instance {self.shared.name}` after the cause is found")
            self._latch_here(reason)
        if self.killed and not record["kill"]:
            # What lasted before it was armed is the armer's to judge; it must last as long again.
            self.since = dict.fromkeys(self.since, self.clock())
        self.killed = bool(record["kill"])

    def _latch_here(self, reason: str) -> None:
        """Whoever killed may have another state folder than this run (another environment), where the next start would not look."""
        for scope in kills.held(self.shared.control):
            if latch.is_latched(self.shared.name, scope):
                continue
            try:
                latch.latch(self.shared.name, reason, scope, BY)
                if scope not in kills.held(self.shared.control):
                    # Armed this very moment: the latch was gone because it was being taken away.
                    latch.release(self.shared.name, scope)
            except OSError as error:
                self.troubles.append(f"kill: it holds in this run but could not be kept for the next start: {error}")


BEGINNINGS = {
    "session": "the session with the venue is down: nothing new is sent",
    "feed": "books of traded symbols are stale or gapped: nothing new is sent in them",
}
