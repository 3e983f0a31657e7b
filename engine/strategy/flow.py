"""Names that may have no value where they are read, and functions that return a value on some ways only.

Python raises at such a place when it gets there. Compiled code does not: it goes on with whatever was in the register.
"""

import ast
from collections.abc import Iterator


def unassigned(function: ast.FunctionDef, local: set[str]) -> list[ast.Name]:
    """Reads of local variables that are not assigned on every way there."""
    flow = _Flow(local)
    flow.run(function.body, _arguments(function))
    return flow.found


def missing_returns(function: ast.FunctionDef) -> Iterator[ast.stmt]:
    """Where a function that returns a value elsewhere returns none: a bare `return`, or the function itself for its end."""
    returns = [node for node in ast.walk(function) if isinstance(node, ast.Return)]
    if not any(node.value is not None for node in returns):
        return
    yield from (node for node in returns if node.value is None)
    if _Flow(set()).run(function.body, set()) is not None:
        yield function


def _arguments(function: ast.FunctionDef) -> set[str]:
    return {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}


# The variables that have a value at a place in the program; None where the program never comes.
Assigned = set[str] | None


def _join(a: Assigned, b: Assigned) -> Assigned:
    if a is None or b is None:
        return b if a is None else a
    return a & b


class _Flow:
    def __init__(self, local: set[str]) -> None:
        self.local = local
        self.found: list[ast.Name] = []
        self.breaks: list[Assigned] = []

    def run(self, body: list[ast.stmt], assigned: Assigned) -> Assigned:
        """What is assigned after these statements."""
        for statement in body:
            if assigned is None:
                return None
            assigned = self.step(statement, assigned)
        return assigned

    def step(self, node: ast.stmt, assigned: set[str]) -> Assigned:
        if isinstance(node, ast.If):
            assigned = self.read(node.test, assigned)
            return _join(self.run(node.body, assigned), self.run(node.orelse, assigned))
        if isinstance(node, ast.For | ast.While):
            return self.loop(node, assigned)
        if isinstance(node, ast.Break):
            self.breaks.append(assigned)
            return None
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            self.look(node.target, assigned)
        assigned = self.read(node, assigned)
        return None if isinstance(node, ast.Return | ast.Continue | ast.Raise) else assigned

    def loop(self, node: ast.For | ast.While, assigned: set[str]) -> Assigned:
        outer, self.breaks = self.breaks, []
        endless = isinstance(node, ast.While) and isinstance(node.test, ast.Constant) and bool(node.test.value)
        assigned = self.read(node.iter if isinstance(node, ast.For) else node.test, assigned)
        inside = self.read(node.target, assigned) if isinstance(node, ast.For) else assigned
        self.run(node.body, inside)
        after = None if endless else self.run(node.orelse, assigned)
        for left in self.breaks:
            after = _join(after, left)
        self.breaks = outer
        return after

    def read(self, node: ast.AST, assigned: set[str]) -> set[str]:
        """What is assigned after a statement or expression without branches, having looked at what it reads."""
        for name in ast.walk(node):
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load):
                self.look(name, assigned)
        return assigned | {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}

    def look(self, name: ast.Name, assigned: set[str]) -> None:
        if name.id in self.local and name.id not in assigned:
            self.found.append(name)
