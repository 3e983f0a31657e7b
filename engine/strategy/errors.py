"""The one exception a strategy's author sees: its text is the whole story, in terms of the author's own file."""

from dataclasses import dataclass


class StrategyError(ValueError):
    """A strategy that cannot run; the text says where, what, and what to write instead."""


class FieldError(StrategyError):
    """A field of a Parameters or State class that cannot be: `owner` and `field` say which, for its line to be found."""

    def __init__(self, owner: str, field: str, what: str, instead: str) -> None:
        super().__init__(f"{owner}.{field}{what}\n  instead: {instead}")
        self.owner, self.field, self.what, self.instead = owner, field, what, instead


@dataclass(frozen=True)
class Problem:
    """One thing to put right: file and line (0: the file as a whole), what it is, and what to write instead."""

    path: str
    line: int
    what: str
    instead: str
    source: str = ""

    def text(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        shown = f"\n    {self.source.strip()}" if self.source.strip() else ""
        return f"{place}: {self.what}{shown}\n  instead: {self.instead}"


SHOWN_MAX = 10


def raise_problems(problems: list[Problem]) -> None:
    """StrategyError with every problem, in the order of the file; nothing where there is none."""
    if not problems:
        return
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: (problem.path, problem.line))
    texts = [problem.text() for problem in ordered[:SHOWN_MAX]]
    if len(ordered) > SHOWN_MAX:
        texts.append(f"... and {len(ordered) - SHOWN_MAX} more")
    raise StrategyError("\n".join(texts))
