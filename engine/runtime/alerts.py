"""Alerts: what a person must hear of at once, on standard error, in the log, and through a command of the user's.

The command is started without a shell, with the sentence as its last word and TICKPATH_INSTANCE and TICKPATH_ALERT in its environment, by
a thread of its own: a command that hangs, cannot be found or fails delays nothing, and is told in the report.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

# A command still running after this is killed. So many may run at once; an alert beyond them is not handed to the command, and counted.
COMMAND_PATIENCE_S = 30.0
COMMANDS_MAX = 8


@dataclass
class Alerts:
    """`said` is every alert with its time; `troubles` are sentences about commands that did not do their work."""

    instance: str
    command: Sequence[str] = ()
    said: list[tuple[str, str]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    running: list[threading.Thread] = field(default_factory=list)

    def say(self, sentence: str) -> None:
        """Never waits, and never raises: an alert must not end what it is about."""
        at = time.strftime("%Y-%m-%d %H:%M:%S %z")
        self.said.append((at, sentence))
        try:
            sys.stderr.write(f"ALERT {at} {self.instance}: {sentence}\n")
            sys.stderr.flush()
        except OSError as error:
            self._trouble(f"standard error: {error.strerror}")
        if self.command:
            self._start(sentence)

    def settle(self, patience_s: float) -> None:
        """Wait a little for commands that still run: they were started for the last alerts of a run that ends."""
        deadline = time.monotonic() + patience_s
        for thread in self.running:
            thread.join(max(0.0, deadline - time.monotonic()))
        if left := sum(thread.is_alive() for thread in self.running):
            self._trouble(f"kill.alert_command={self.command[0]}: {left} still running at the end of the run")

    def _start(self, sentence: str) -> None:
        self.running = [thread for thread in self.running if thread.is_alive()]
        if len(self.running) >= COMMANDS_MAX:
            self._trouble(f"kill.alert_command={self.command[0]}: {COMMANDS_MAX} were running, so it was not started for: {sentence}")
            return
        thread = threading.Thread(target=self._run, args=(sentence,), daemon=True)
        self.running.append(thread)
        try:
            thread.start()
        except RuntimeError as error:
            self._trouble(f"kill.alert_command={self.command[0]}: not started ({error}) for: {sentence}")

    def _run(self, sentence: str) -> None:
        about = {"TICKPATH_INSTANCE": self.instance, "TICKPATH_ALERT": sentence}
        try:
            ended = subprocess.run(
                [*self.command, sentence], env=os.environ | about, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, timeout=COMMAND_PATIENCE_S, check=False, start_new_session=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            self._trouble(f"kill.alert_command={self.command[0]}: {error}")
            return
        if ended.returncode:
            self._trouble(f"kill.alert_command={self.command[0]}: ended with code {ended.returncode}")

    def _trouble(self, sentence: str) -> None:
        if sentence not in self.troubles:
            self.troubles.append(sentence)
