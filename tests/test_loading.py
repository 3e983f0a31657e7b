"""What is loaded for what: a command that needs no kernel starts without the compiler, and a tool without the stages it does not run."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "import contextlib, tools.cli\nwith contextlib.suppress(SystemExit): tools.cli.main(['config'])"


@pytest.mark.parametrize(("work", "never"), [(CONFIG, "numba"), ("import tools.book", "engine.feed.stage")])
def test_what_is_not_needed_is_not_loaded(work: str, never: str) -> None:
    asked = f"import sys\n{work}\nsys.exit({never!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
