"""The kill switch: a latch on disk that outlives the instance, and the word that its gateway reads before every order."""

import time

import numpy as np

from engine.layout import CONTROL
from engine.runtime import latch
from shm.segment import SegmentError
from shm.table import Table


def set_kill(instance: str, reason: str) -> None:
    """Latch, then block new orders. SegmentError where the instance does not run: it is latched all the same, and cannot start."""
    path = latch.latch(instance, reason)
    try:
        control = Table.attach(f"{instance}.control", CONTROL)
    except SegmentError as error:
        raise SegmentError(f"{error} It cannot start now until `tickpath arm --instance {instance}` ({path})") from None
    record = control.records[0]
    raw = reason.encode()[: record["kill_reason"].size]
    record["kill_reason"][:] = 0
    record["kill_reason"][: len(raw)] = np.frombuffer(raw, np.uint8)
    record["kill_ns"] = time.time_ns()
    record["kill"] = 1


def clear_kill(instance: str) -> bool:
    """Take the latch away and let a running instance's orders pass; whether one runs. SegmentError where there was neither."""
    latched = latch.release(instance)
    try:
        control = Table.attach(f"{instance}.control", CONTROL)
    except SegmentError:
        if latched:
            return False
        raise
    control.records[0]["kill"] = 0
    return True
