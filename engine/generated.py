"""Kernels that are written out as modules, because numba finds only plain globals of a module in its cache at the next start.

A module's name is a hash of what is in it, and its bytes and its file time follow from the name: two processes that write it at
once write the same thing, and what either compiled serves the other.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

# numba takes a file's time for part of what it is: one fixed time keeps what a second writer's twin compiled.
FILE_TIME_S = 946_684_800


def write_module(folder: Path, name: str, source: str) -> Path:
    """Write folder/name.py unless it is there, whole or not at all."""
    path = folder / f"{name}.py"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{name}.{os.getpid()}"
        draft.write_text(source)
        os.utime(draft, (FILE_TIME_S, FILE_TIME_S))
        draft.replace(path)
    return path


def import_module(folder: Path, name: str) -> Any:
    """Import a written module. Its folder stays importable, for another generated module to import this one by name."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()
    return importlib.import_module(name)
