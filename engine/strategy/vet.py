"""What compiles, and would still go wrong while it trades: found in what numba made of a strategy, before any of it runs.

A fraction put into a whole-number field is cut off without a word, in Python's records as in compiled ones. And a handler must not
be able to raise: the loop has nobody to catch it. Machine code that cannot raise holds no exception to raise.
"""

import ast
from collections.abc import Iterator
from typing import Any

from numba import types
from numba.core import ir

from engine.strategy.errors import Problem
from engine.strategy.handlers import functions
from engine.strategy.source import Source

# How numba names an exception that it keeps ready in a compiled function.
EXCEPTION = "pickledata"


def fractions_lost(kernels: list[Any], source: Source) -> Iterator[Problem]:
    """Assignments of a fraction to an int field, in these compiled functions."""
    files = {each.file: each for each in source.all()}
    for kernel in kernels:
        for compiled in kernel.overloads.values():
            kinds = compiled.type_annotation.typemap
            for statement in compiled.type_annotation.calltypes:
                if isinstance(statement, ir.SetAttr) and _is_narrowed(
                    kinds[statement.target.name], statement.attr, kinds[statement.value.name]
                ):
                    where, field = files[statement.loc.filename], statement.attr
                    yield where.problem(
                        statement.loc.line,
                        f"in {kernel.__name__}: a number with a fraction is put into {field}, which holds whole numbers",
                        f"`{field}: float` where it is declared, or int(...) to cut the fraction off",
                    )


def _is_narrowed(record: Any, field: str, value: Any) -> bool:
    return isinstance(record, types.Record) and isinstance(record.typeof(field), types.Integer) and isinstance(value, types.Float)


def can_fail(kernel: Any, source: Source) -> Iterator[Problem]:
    """Whether a compiled handler can raise, and the likely places: what it calls is compiled into it."""
    if EXCEPTION not in kernel.inspect_llvm(kernel.signatures[-1]):
        return
    likely = [(each, *place) for each in source.all() for place in _likely(each)]
    if not likely:
        where = functions(source.tree)[kernel.__name__]
        yield source.problem(where, f"{kernel.__name__} can raise while it trades", "arithmetic that cannot fail, or a test before it")
    for each, name, node, what, instead in likely:
        yield each.problem(node, f"in {name}: {what}", instead)


def _likely(source: Source) -> Iterator[tuple[str, ast.AST, str, str]]:
    for name, function in functions(source.tree).items():
        for node in ast.walk(function):
            if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Constant):
                yield name, node, f"{ast.unparse(node)} fails where the index is outside the tuple", "a loop over the tuple, or if and elif"
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and not _is_small(node.right):
                yield (
                    name,
                    node,
                    f"{ast.unparse(node)} fails for 0 and a negative exponent",
                    "math.pow, or the multiplication or division written out",
                )
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "pow":
                yield name, node, f"{ast.unparse(node)} fails for 0 and a negative exponent", "math.pow, or the multiplication written out"
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range" and len(node.args) == 3:
                yield name, node, f"{ast.unparse(node)} fails where the step is 0", "a step that is a number written out"


def _is_small(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and node.value >= 0
