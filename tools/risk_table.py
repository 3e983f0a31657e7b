"""Which test shows which risk control: a table made from the tests themselves, and from running them.

A test says what it shows: @pytest.mark.statement(4). A statement that no test names is told as not shown. The statements are those that
SEC rule 15c3-5 and MiFID II's RTS 6 are usually broken down to; a table of them makes nobody compliant.
"""

import ast
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import click

ROOT = Path(__file__).resolve().parents[1]

STATEMENTS = {
    1: ("an order that would breach a credit or capital limit, open, filled, unknown counted, is refused", "15c3-5(c)(1)(i); RTS 6 15(4)"),
    2: ("a price outside its collar, per order or over a window, or without a reference, is refused", "15c3-5(c)(1)(ii); RTS 6 15(1)(a)"),
    3: ("a value or quantity above its maximum is refused; so is what is zero, negative, not finite, or does not fit", "RTS 6 15(1)(b)(c)"),
    4: ("a duplicative order within a window is refused", "15c3-5(c)(1)(ii)"),
    5: ("the rate of messages is capped; cancels and the kill switch always get through", "RTS 6 15(1)(d)"),
    6: ("every order sent counts against the limits at once", "RTS 6 15(2)"),
    7: ("a strategy that fires too often is disabled until a named person enables it, after a restart too", "RTS 6 15(3)"),
    8: ("a restricted symbol, or a strategy that nobody authorised, is blocked", "15c3-5(c)(2); RTS 6 15(5)"),
    9: ("an override is temporary, logged, and takes a second person", "RTS 6 15(6)"),
    10: ("kill: one action cancels any subset of orders and blocks new ones until armed, with the strategy hung too", "RTS 6 12(1)"),
    11: ("each order is attributable to an algorithm and a trader", "RTS 6 12(3)"),
    12: ("an alert comes within 5 s of its event", "RTS 6 16(5)"),
    13: ("there is no path to a venue around the controls", "15c3-5(d)"),
    14: ("the system stands twice the highest volume of messages and trades of six months", "RTS 6 10"),
    15: ("executions are reported at once, and orders can be replayed", "15c3-5(c)(2); RTS 6 13"),
    16: ("positions are reconciled with the venue's, and a mismatch stops trading", "RTS 6 17"),
    17: ("limits are changed only by a named person with a reason, and the change is logged", "RTS 6 18"),
    18: ("the self-assessment is generated from test results: this table", "RTS 6 9"),
}  # fmt: skip

NOT_SHOWN = "not shown"


@dataclass(frozen=True)
class Shown:
    """A test that shows a statement."""

    statement: int
    test: str
    file: str


def shown(folder: Path = ROOT / "tests") -> list[Shown]:
    """Every test that names a statement, in the order of files and lines. ValueError for a statement that does not exist."""
    found = []
    for path in sorted(folder.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                found += [Shown(number, node.name, path.name) for number in _named(node, path)]
    return found


def _named(function: ast.FunctionDef, path: Path) -> Iterator[int]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.statement":
            for argument in decorator.args:
                number = ast.literal_eval(argument)
                if number not in STATEMENTS:
                    raise ValueError(f"{path.name}:{function.lineno}: statement({number}): expected 1 to {len(STATEMENTS)}")
                yield number


def outcomes(tests: list[Shown]) -> dict[tuple[str, str], str]:
    """Run them; by file and test: passed, failed or skipped, the worst of its cases."""
    nodes = sorted({f"tests/{test.file}::{test.test}" for test in tests})
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={result}", *nodes]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not result.exists():
            raise RuntimeError(f"pytest ended with {done.returncode} and without a result:\n{done.stdout}{done.stderr}")
        found: dict[tuple[str, str], str] = {}
        ranks = ("passed", "skipped", "failed")
        for case in ElementTree.parse(result).iter("testcase"):
            place = (case.attrib["classname"].split(".")[-1] + ".py", case.attrib["name"].split("[")[0])
            told = {child.tag for child in case}
            outcome = "failed" if told & {"failure", "error"} else "skipped" if "skipped" in told else "passed"
            found[place] = max(found.get(place, "passed"), outcome, key=ranks.index)
    return found


def table(tests: list[Shown], found: dict[tuple[str, str], str] | None) -> str:
    """As Markdown; `found` are the outcomes where they were run."""
    lines = ["| | statement | rule | test | file |" + (" |" if found is not None else ""), "| --- " * (5 + (found is not None)) + "|"]
    for number, (statement, rule) in STATEMENTS.items():
        rows: list[Shown | None] = [test for test in tests if test.statement == number]
        rows = rows or [None]
        for place, test in enumerate(rows):
            head = f"| {number} | {statement} | {rule} " if place == 0 else "| | | "
            name = f"| {test.test.removeprefix('test_').replace('_', ' ')} | {test.file} |" if test else f"| **{NOT_SHOWN}** | |"
            outcome = "" if found is None else f" {found.get((test.file, test.test), 'not run') if test else ''} |"
            lines.append(f"{head}{name}{outcome}")
    return "\n".join(lines)


@click.command()
@click.option("--run/--no-run", default=True, show_default=True, help="Run the tests and say how each ended.")
def main(run: bool) -> None:
    """Print the table. Exits with 1 where a test did not pass."""
    tests = shown()
    found = outcomes(tests) if run else None
    click.echo(table(tests, found))
    missing = [number for number in STATEMENTS if not any(test.statement == number for test in tests)]
    told = ", ".join(map(str, missing)) or "none"
    click.echo(f"\n{len(STATEMENTS) - len(missing)} of {len(STATEMENTS)} statements are shown; not shown: {told}")
    if found is not None and any(found.get((test.file, test.test)) != "passed" for test in tests):
        sys.exit(1)


if __name__ == "__main__":
    main()
