"""A strategy's files: found by module name or path, read once, parsed, together with the files beside it that it imports."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from engine.strategy.errors import Problem, StrategyError, raise_problems

# What a strategy may import besides the files beside it. Anything else could change without its compiled code being made anew.
IMPORTABLE = ("engine.strategy.api", "math", "numpy", "typing", "__future__")


@dataclass(frozen=True)
class Source:
    """One file of a strategy: its name as an identifier, its path as the user wrote it,
    its text, its syntax tree, and the sources it imports by name."""

    name: str
    path: Path
    text: str
    tree: ast.Module
    siblings: dict[str, "Source"] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The path that its code objects carry, for a debugger to find."""
        return str(self.path.resolve())

    def line(self, number: int) -> str:
        lines = self.text.splitlines()
        return lines[number - 1] if 0 < number <= len(lines) else ""

    def problem(self, node: ast.AST | int, what: str, instead: str) -> Problem:
        number = node if isinstance(node, int) else getattr(node, "lineno", 0)
        return Problem(str(self.path), number, what, instead, self.line(number))

    def content(self) -> str:
        """Every byte of it and of what it imports, as one hash."""
        digest = blake2b(self.text.encode(), digest_size=16)
        for name in sorted(self.siblings):
            digest.update(f"{name} {self.siblings[name].content()}".encode())
        return digest.hexdigest()

    def all(self) -> list["Source"]:
        """Itself and what it imports, each once."""
        found = {self.file: self}
        for sibling in self.siblings.values():
            found |= {source.file: source for source in sibling.all()}
        return list(found.values())


def read(strategy: str) -> Source:
    """The strategy named by a module ('engine.strategy.market_maker') or a path ('./mine.py'). StrategyError where there is none."""
    return _read_file(locate(strategy), ())


def locate(strategy: str) -> Path:
    """The file of a strategy."""
    if strategy.endswith(".py") or "/" in strategy:
        path = Path(strategy)
        if not path.is_file():
            raise StrategyError(
                f"strategy={strategy}: there is no such file (looked in {path.resolve().parent})\n"
                f"  instead: a path that exists, or `tickpath strategy new NAME` to write one"
            )
        return path
    try:
        found = importlib.util.find_spec(strategy)
    except (ImportError, ValueError, AttributeError):
        found = None
    if found is None or not found.origin or not found.origin.endswith(".py"):
        raise StrategyError(
            f"strategy={strategy}: there is no such module\n"
            f"  instead: a module such as engine.strategy.market_maker, or a file such as ./{strategy.rpartition('.')[2] or 'mine'}.py"
        )
    return Path(found.origin)


def _read_file(path: Path, importing: tuple[Path, ...]) -> Source:
    text, tree = _parsed(path)
    source = Source(re.sub(r"\W", "_", path.stem, flags=re.ASCII), path, text, tree)
    problems = []
    for node in _top_statements(tree.body):
        for name in _imported(node):
            beside = path.parent / f"{name}.py"
            if name in IMPORTABLE:
                continue
            if not name.isidentifier() or not beside.is_file():
                problems.append(_not_importable(source, node, name))
            elif beside in (*importing, path):
                problems.append(source.problem(node, f"imports {name}, which imports this file", "put what both need into a third file"))
            else:
                source.siblings[name] = _read_file(beside, (*importing, path))
    raise_problems(problems)
    return source


def _parsed(path: Path) -> tuple[str, ast.Module]:
    try:
        text = path.read_text()
        return text, ast.parse(text, str(path))
    except SyntaxError as error:
        problem = Problem(str(path), error.lineno or 0, f"this is not Python: {error.msg}", "correct the syntax", error.text or "")
    except (UnicodeDecodeError, ValueError) as error:
        problem = Problem(str(path), 0, f"this is not Python source: {error}", "a text file in UTF-8")
    except OSError as error:
        problem = Problem(str(path), 0, f"cannot read it: {error.strerror}", "a file that this user may read")
    raise StrategyError(problem.text())


def _top_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a file is imported, those inside if, try and with too. `if __name__ == ...` does not."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from _top_statements(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _top_statements(handler.body)


def _imported(node: ast.stmt) -> list[str]:
    """The modules that a statement at the top of a file imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + (node.module or "")]
    return []


def _not_importable(source: Source, node: ast.stmt, name: str) -> Problem:
    if name.startswith("."):
        return source.problem(
            node, f"imports {name} relative to a package", f"`import {name.lstrip('.') or 'helpers'}`: a file beside this one"
        )
    return source.problem(
        node,
        f"imports {name}, which a strategy cannot be compiled from",
        f"{', '.join(IMPORTABLE[:3])}, or a file beside this one ({name.rpartition('.')[2]}.py), which is compiled with it",
    )
