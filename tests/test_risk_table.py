"""`make risk-table`: made from the tests, and honest about what is missing or failed."""

from pathlib import Path

import pytest

from tools import risk_table
from tools.risk_table import STATEMENTS, Shown, outcomes, shown, table


@pytest.mark.statement(18)
def test_the_table_is_made_from_the_tests_and_says_what_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "@pytest.mark.statement(4)\ndef test_it_is_so():\n    pass\n\n@pytest.mark.statement(4, 5)\ndef test_both():\n    pass\n"
    )
    found = shown(tmp_path)
    assert found == [
        Shown(4, "test_it_is_so", "test_some.py"),
        Shown(4, "test_both", "test_some.py"),
        Shown(5, "test_both", "test_some.py"),
    ]
    lines = table(found, {("test_some.py", "test_it_is_so"): "passed", ("test_some.py", "test_both"): "failed"}).splitlines()
    assert len(lines) == 2 + len(STATEMENTS) + 1
    assert lines[5].startswith("| 4 | a duplicative order") and lines[5].endswith("| it is so | test_some.py | passed |")
    assert lines[6] == "| | | | both | test_some.py | failed |"
    assert sum("**not shown**" in line for line in lines) == len(STATEMENTS) - 2


def test_a_statement_that_does_not_exist_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text("@pytest.mark.statement(19)\ndef test_it():\n    pass\n")
    with pytest.raises(ValueError, match=r"test_some.py:2: statement\(19\): expected 1 to 18"):
        shown(tmp_path)


def test_outcomes_are_those_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst of a test's cases is what it came to."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(
        "import pytest\n\n@pytest.mark.parametrize('n', [1, 2, 3])\ndef test_cases(n):\n    assert n != 2\n\ndef test_good():\n    pass\n\n"
        "def test_absent():\n    pytest.skip('no data')\n"
    )
    monkeypatch.setattr(risk_table, "ROOT", tmp_path)
    names = ("test_cases", "test_good", "test_absent")
    assert outcomes([Shown(1, name, "test_some.py") for name in names]) == {
        ("test_some.py", "test_cases"): "failed",
        ("test_some.py", "test_good"): "passed",
        ("test_some.py", "test_absent"): "skipped",
    }


def test_every_pre_trade_statement_is_shown() -> None:
    assert {test.statement for test in shown()} >= {1, 2, 3, 4, 5, 6, 7, 8, 13, 17, 18}
