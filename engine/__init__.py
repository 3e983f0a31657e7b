"""The path of one tick. Importing it names the kernel cache by what the kernels are made of.

numba re-reads only the file a cached kernel stands in: it would keep an old helper that was inlined from another file. So the
cache folder carries a hash of every hot file and layout, and of numba's own version; a changed byte means a fresh folder.
"""

import os
import sys
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def hot_files() -> list[Path]:
    """Every file that kernels are compiled from, in a fixed order."""
    sources = [path for room in ("shm", "engine") for path in (ROOT / room).rglob("*.py") if is_hot(path)]
    return sorted(sources + [path for room in ("shm", "engine") for path in (ROOT / room).rglob("*.h")])


def is_hot(path: Path) -> bool:
    """A hot file holds kernels, or the constants that they freeze: hot.py, hot/*.py, and the tables those import."""
    return path.name in {"hot.py", "atomics.py", "layout.py"} or path.parent.name == "hot" or path.name in WIRE_TABLES


WIRE_TABLES = {"table.py", "itch.py", "moldudp64.py", "glimpse.py", "v42.py", "v50.py", "bridge.py", "soupbintcp.py"}


def build_hash() -> int:
    """One number for everything that must be equal in processes that trade together."""
    digest = blake2b(digest_size=8)
    for path in hot_files():
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(path.read_bytes())
    digest.update(f"numba {version('numba')} numpy {version('numpy')} python {sys.version}".encode())
    return int.from_bytes(digest.digest(), "little") >> 1


def cache_folder() -> Path:
    """Where compiled kernels live: $NUMBA_CACHE_DIR, or a folder of this build in the user's cache."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "tickpath" / f"{build_hash():016x}"


def _use_cache_folder() -> None:
    folder = str(cache_folder())
    os.environ["NUMBA_CACHE_DIR"] = folder
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = folder


_use_cache_folder()
