"""The kill word of a running instance: read by the gateway before every order, whatever the strategy is doing."""

import time

import numpy as np

from engine.layout import CONTROL
from shm.table import Table


def set_kill(instance: str, reason: str) -> None:
    """Block new orders. SegmentError where the instance does not run."""
    control = Table.attach(f"{instance}.control", CONTROL)
    record = control.records[0]
    raw = reason.encode()[: record["kill_reason"].size]
    record["kill_reason"][:] = 0
    record["kill_reason"][: len(raw)] = np.frombuffer(raw, np.uint8)
    record["kill_ns"] = time.time_ns()
    record["kill"] = 1


def clear_kill(instance: str) -> None:
    """Let orders pass again."""
    control = Table.attach(f"{instance}.control", CONTROL)
    control.records[0]["kill"] = 0
