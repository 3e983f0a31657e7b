"""The kill switch: a latch on disk that outlives the instance, and the word that its gateway reads before every order."""

import contextlib
import os
import time
from collections.abc import Iterator

import numpy as np

from engine.layout import CONTROL
from engine.runtime import latch
from shm.segment import SHM, SegmentError
from shm.table import Table


def set_kill(instance: str, reason: str) -> None:
    """Latch, then block new orders. SegmentError where the instance does not run: it is latched all the same, and cannot start."""
    path = latch.latch(instance, reason)
    try:
        control = _control(instance)
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
        control = _control(instance)
    except SegmentError:
        if latched:
            return False
        raise
    control.records[0]["kill"] = 0
    return True


def _control(instance: str) -> Table:
    with as_owner(instance):
        return Table.attach(f"{instance}.control", CONTROL)


@contextlib.contextmanager
def as_owner(instance: str) -> Iterator[None]:
    """Root acts as the instance's user, whose shared memory nobody else may attach, and with no more rights than that user has."""
    path = SHM / f"{instance}.control"
    owner = path.stat().st_uid if os.geteuid() == 0 and path.exists() else os.geteuid()
    before = os.geteuid()
    if owner == before:
        yield
        return
    os.seteuid(owner)
    try:
        yield
    finally:
        os.seteuid(before)
