"""The fuzzers of what is compiled: each in a process of its own, so that a crash is a failure and not the end of the tests.

    python -m tests.fault_fuzz TARGET FIRST_SEED ROUNDS [LAST_FILE]

Every round is a seed. Before it begins its number is written to LAST_FILE, so whoever finds this process dead knows which one it was.
A round that takes too long ends the process with a traceback, and memory that grows from round to round ends it with a sentence.
"""

import faulthandler
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from tests.fault_targets import TARGETS, Target

ROUND_S = 30
# Rounds that make what is made once; after them the process may not grow by more than this.
WARM_ROUNDS = 20
GROWTH_KIB_MAX = 64 << 10


def fuzz(make: Callable[[], Target], first: int, rounds: int, note: Callable[[int], object]) -> int:
    """Run rounds. Returns by how many KiB the process grew after the first ones."""
    target = make()
    held = 0
    try:
        for seed in range(first, first + rounds):
            note(seed)
            if seed > first:
                # The first one compiles, which is allowed to take its time.
                faulthandler.dump_traceback_later(ROUND_S, exit=True)
            target.round(seed)
            if seed - first == WARM_ROUNDS:
                held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    finally:
        faulthandler.cancel_dump_traceback_later()
        target.close()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held
    return grown if held else 0


def main() -> int:
    faulthandler.enable()
    name, first, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    last = Path(sys.argv[4]) if len(sys.argv) > 4 else None
    grown = fuzz(TARGETS[name], first, rounds, (lambda seed: last.write_text(str(seed))) if last else (lambda seed: None))
    if grown > GROWTH_KIB_MAX:
        print(f"{name}: {rounds} rounds took {grown} KiB more and more, expected at most {GROWTH_KIB_MAX}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
