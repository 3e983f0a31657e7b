"""The handlers a strategy may have: their names, what they receive, and what is wrong with those that a file has."""

import ast
import difflib
from collections.abc import Iterator

import numpy as np

from engine.strategy import layout
from engine.strategy.errors import Problem
from engine.strategy.source import Source

# Each handler and the record it receives.
HANDLERS: dict[str, tuple[str, np.dtype]] = {
    "on_book": ("quote", layout.QUOTE),
    "on_trade": ("trade", layout.TRADE),
    "on_level": ("level", layout.LEVEL),
    "on_report": ("report", layout.REPORT),
    "on_timer": ("timer", layout.TIMER),
    "on_status": ("status", layout.STATUS),
}

# What other platforms call them.
ELSEWHERE = {
    "on_tick": "on_book", "on_quote": "on_book", "on_depth": "on_level", "on_fill": "on_report", "on_order": "on_report",
    "on_execution": "on_report", "on_start": "on_status", "on_time": "on_timer", "on_clock": "on_timer",
}  # fmt: skip


def functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    """The functions at the top of a file."""
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def check_handlers(source: Source) -> Iterator[Problem]:
    """Handlers by name and arguments: none at all, misspelt, twice, async, or with other arguments than the loop gives."""
    handlers = 0
    seen: set[str] = set()
    for node in source.tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("on_"):
            continue
        handlers += 1
        if node.name not in HANDLERS:
            near = [ELSEWHERE[node.name]] if node.name in ELSEWHERE else difflib.get_close_matches(node.name, HANDLERS, 1, cutoff=0.75)
            known = f"did you mean {near[0]}?" if near else f"the handlers are {', '.join(HANDLERS)}"
            instead = f"{near[0] if near else 'one of these'}, or a name that does not begin with on_ if it is no handler"
            yield source.problem(node, f"{node.name} is not a handler: {known}", instead)
        elif isinstance(node, ast.AsyncFunctionDef):
            yield source.problem(node, f"{node.name} is async", f"def {signature(node.name)}: events come to the handlers")
        elif node.name in seen:
            yield source.problem(node, f"{node.name} is defined a second time", "one: Python would keep the last and forget the first")
        elif wrong := wrong_arguments(node):
            yield source.problem(node, f"{node.name} {wrong}", f"def {signature(node.name)}:")
        seen.add(node.name)
    if not handlers:
        yield source.problem(0, "there is no handler in it", f"at least one function, such as def {signature('on_book')}:")


def signature(handler: str) -> str:
    return f"{handler}({', '.join(arguments_of(handler))})"


def arguments_of(handler: str) -> list[str]:
    return ["ctx", "params", "state", HANDLERS[handler][0]]


def wrong_arguments(node: ast.FunctionDef) -> str:
    """What is wrong with a handler's arguments, or nothing."""
    given = node.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    if given.vararg or given.kwarg or given.kwonlyargs or given.defaults or node.decorator_list:
        return "takes its arguments plainly: no *, **, defaults or decorators"
    if names != arguments_of(node.name):
        return f"takes ({', '.join(names)}): expected ({', '.join(arguments_of(node.name))})"
    return ""
