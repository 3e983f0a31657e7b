"""What can be said about a strategy's functions before numba sees them: names, fields, and Python that has no place in a trading loop.

Only functions that a handler reaches are checked. What a handler receives is followed into the functions it calls, so that a wrong
field is told in the function that reads it. Everything found is told at once.
"""

import ast
import builtins
import difflib
import inspect
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numba
import numpy as np

from engine.strategy.errors import Problem
from engine.strategy.fields import EMPTY, record_dtype
from engine.strategy.flow import missing_returns, unassigned
from engine.strategy.handlers import HANDLERS, functions
from engine.strategy.refused import BUILTIN_ADVICE, BUILTINS, NUMPY_SCALARS, REFUSED
from engine.strategy.source import Source

# A handler that runs as plain Python, for a debugger, may print.
PLAIN_PYTHON = bool(numba.config.DISABLE_JIT)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Seen:
    """A record that an expression names: its layout, and whether it is memory of the strategy's own, which it may write."""

    dtype: np.dtype
    kind: str

    @property
    def writable(self) -> bool:
        return self.kind == "State"


@dataclass(frozen=True)
class Function:
    """A function of a strategy: where it is written, the names it can see, and the records that its arguments are."""

    source: Source
    names: Mapping[str, Any] = field(compare=False)
    node: ast.FunctionDef
    records: tuple[tuple[str, Seen], ...]

    @property
    def is_handler(self) -> bool:
        return self.node.name in HANDLERS


def check_functions(
    source: Source, module: types.ModuleType, params: type[msgspec.Struct] | None, state: type[msgspec.Struct] | None
) -> Iterator[Problem]:
    """Every function that a handler reaches, in this file and those beside it."""
    files = {each.file: each for each in source.all()}
    todo = [
        Function(source, vars(module), node, handler_records(node.name, params, state))
        for node in functions(source.tree).values()
        if node.name in HANDLERS
    ]
    done: list[Function] = []
    while todo:
        function = todo.pop()
        if function not in done:
            done.append(function)
            checker = Checker(function)
            yield from checker.problems()
            todo += [reached for call in checker.calls if (reached := _reached(files, *call)) is not None]


def handler_records(handler: str, params: type[msgspec.Struct] | None, state: type[msgspec.Struct] | None) -> tuple[tuple[str, Seen], ...]:
    """What a handler receives, but for ctx."""
    event, dtype = HANDLERS[handler]
    return (
        ("params", Seen(record_dtype(params), "Parameters")),
        ("state", Seen(record_dtype(state), "State")),
        (event, Seen(dtype, event)),
    )


def _reached(files: Mapping[str, Source], callee: Any, records: Mapping[int | str, Seen]) -> Function | None:
    """A function of the strategy's own that is called with these records, by place or name; None for anybody else's."""
    plain = getattr(callee, "py_func", callee)
    source = files.get(plain.__code__.co_filename)
    node = functions(source.tree).get(plain.__name__) if source else None
    if source is None or node is None:
        return None
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    named = {
        names[place] if isinstance(place, int) else place: seen
        for place, seen in records.items()
        if not isinstance(place, int) or place < len(names)
    }
    return Function(source, plain.__globals__, node, tuple(named.items()))


class Checker(ast.NodeVisitor):
    """One function of a strategy."""

    def __init__(self, function: Function) -> None:
        self.source = function.source
        self.names = function.names
        self.node = function.node
        self.is_handler = function.is_handler
        self.found: list[Problem] = []
        self.calls: list[tuple[Any, dict[int | str, Seen]]] = []
        stored = {name.id for name in ast.walk(self.node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}
        inner = {node.name for node in ast.walk(self.node) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
        inner |= {(alias.asname or alias.name).partition(".")[0] for alias in ast.walk(self.node) if isinstance(alias, ast.alias)}
        self.locals = (
            stored | inner - {self.node.name} | {argument.arg for argument in ast.walk(self.node.args) if isinstance(argument, ast.arg)}
        )
        self.records = {name: seen for name, seen in function.records if name not in stored}
        self.records |= self.named_records()

    def problems(self) -> list[Problem]:
        arguments = self.node.args
        if arguments.vararg or arguments.kwarg:
            self.refuse(self.node, "*args and **kwargs", "each argument by its name")
        if self.node.decorator_list:
            self.refuse(self.node, "a decorator", "the function alone: it is compiled with the handlers that call it")
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self.visit(default)
        for statement in _without_docstring(self.node.body):
            self.visit(statement)
        if not self.found:
            self.check_flow()
        return self.found

    def check_flow(self) -> None:
        for name in unassigned(self.node, self.locals):
            self.say(name, f"{name.id} may have no value here", f"a value for {name.id} on every way to this line")
        if self.is_handler:
            for node in ast.walk(self.node):
                if isinstance(node, ast.Return) and node.value is not None:
                    self.say(node, "a handler returns nothing", "`return`; what shall be remembered goes into `state`")
            return
        for statement in missing_returns(self.node):
            where = "at its end" if statement is self.node else "here"
            self.say(statement, f"it returns a value elsewhere, and none {where}", "a value at every return, such as `return 0`")

    def refuse(self, node: ast.AST, what: str, instead: str) -> None:
        self.say(node, f"{what} cannot be compiled into the trading loop", instead)

    def say(self, node: ast.AST, what: str, instead: str) -> None:
        self.found.append(self.source.problem(node, f"in {self.node.name}: {what}", instead))

    def visit(self, node: ast.AST) -> None:
        if refused := REFUSED.get(type(node)):
            self.refuse(node, *refused)
        else:
            super().visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str | bytes):
            self.refuse(node, f"text ({node.value!r})", "numbers: BUY, SELL, EXECUTED and their like are numbers already")
        elif node.value is None:
            self.refuse(node, "None", "0, or another number that means nothing is there")

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self.check_store(target)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.check_store(node.target)
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.check_store(node.target)
        self.generic_visit(node)

    def check_store(self, target: ast.expr) -> None:
        """Whether what is assigned to is the strategy's to write."""
        if isinstance(target, ast.Tuple):
            for element in target.elts:
                self.check_store(element)
        elif isinstance(target, ast.Attribute) and (owner := self.record_of(target.value)) is not None:
            name = ast.unparse(target)
            if not owner.writable:
                stays = "parameters stay as the config gave them" if owner.kind == "Parameters" else "records stay as they came"
                self.say(target, f"{name} is read-only", f"a State field, or a local variable: {stays}")
            elif (part := self.record_of(target)) is not None:
                self.say(target, f"{name} is a record of its own", f"its fields one by one: {name}.{_fields(part.dtype)[0]} = ...")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = self.record_of(node.value)
        module = self.names.get(node.value.id) if isinstance(node.value, ast.Name) and node.value.id not in self.locals else None
        if owner is not None:
            self.check_field(node, owner)
        elif isinstance(node.value, ast.Name) and node.value.id == "ctx" and self.is_handler:
            api = "buy, sell, replace, cancel, position, tick_px, lot_qty, is_valid, now_ns"
            self.say(node, f"ctx.{node.attr} is not yours to use", f"ctx as the first argument of {api}")
        elif module is np and node.attr not in NUMPY_SCALARS:
            self.refuse(
                node, f"numpy.{node.attr}", "numpy's functions of single numbers, or math: an array would be allocated while trading"
            )
        elif isinstance(module, types.ModuleType) and not hasattr(module, node.attr):
            name = ast.unparse(node.value)
            self.say(node, f"{name} has no {node.attr}{_did_you_mean(node.attr, dir(module))}", f"a function or a number of {name}")
        self.generic_visit(node)

    def record_of(self, node: ast.expr) -> Seen | None:
        """The record that an expression names (`quote`, `state`, `state.bid`, one or the other), or None."""
        if isinstance(node, ast.Name):
            return self.records.get(node.id)
        if isinstance(node, ast.IfExp):
            body, other = self.record_of(node.body), self.record_of(node.orelse)
            return body if body == other else None
        if isinstance(node, ast.Attribute) and (owner := self.record_of(node.value)) is not None and node.attr in _fields(owner.dtype):
            part = owner.dtype[node.attr]
            return Seen(part, owner.kind) if part.names else None
        return None

    def named_records(self) -> dict[str, Seen]:
        """Local variables that stand for a record, and always for the same kind."""
        given: dict[str, list[Seen | None]] = {}
        for node in ast.walk(self.node):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                given.setdefault(node.targets[0].id, []).append(self.record_of(node.value))
        return {name: seen[0] for name, seen in given.items() if seen[0] is not None and all(other == seen[0] for other in seen)}

    def check_field(self, node: ast.Attribute, owner: Seen) -> None:
        known = _fields(owner.dtype)
        if node.attr in known:
            return
        record, name = ast.unparse(node.value), node.attr
        declared = owner.kind in ("State", "Parameters")
        if not known and declared:
            wanted = f"class {'Memory' if owner.writable else 'Params'}({owner.kind}):\n        {name}: int = 0"
            self.say(node, f"{record}.{name}, but this file has no {owner.kind} class", f"at the top of the file\n    {wanted}")
            return
        add = f", or add `{name}: int = 0` to the {owner.kind} class" if declared else ""
        self.say(node, f"{record} has no field {name}{_did_you_mean(name, known)}", f"one of {', '.join(known)}{add}")

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store) or node.id in self.locals:
            return
        if node.id in self.names:
            self.check_global(node, self.names[node.id])
        elif not hasattr(builtins, node.id):
            known = [*self.locals, *(name for name in self.names if not name.startswith("_")), *BUILTINS]
            what = f"{node.id} is not defined{_did_you_mean(node.id, known)}"
            self.say(node, what, "a name of this file, of `from engine.strategy.api import *`, or of math")
        elif node.id not in BUILTINS and not (node.id == "print" and PLAIN_PYTHON):
            known_ones = f"arithmetic; of Python's own functions there are {', '.join(sorted(BUILTINS))}, and there is math"
            self.refuse(node, node.id, BUILTIN_ADVICE.get(node.id, known_ones))

    def check_global(self, node: ast.Name, value: Any) -> None:
        if isinstance(value, type):
            what = f"making a {node.id}" if issubclass(value, msgspec.Struct) else f"the class {node.id}"
            self.refuse(node, what, "the handler's own `state` and `params`: they are made before trading begins")
        elif isinstance(value, list | dict | set | str | bytes | np.ndarray) or value is None:
            kind = type(value).__name__
            self.refuse(
                node, f"{node.id}, a {kind} at the top of the file,", "a number or a tuple of numbers there, or parameters in the config"
            )
        elif inspect.iscoroutinefunction(getattr(value, "py_func", value)):
            self.refuse(node, f"the async function {node.id}", "a plain function: events come to the handlers")

    def visit_Call(self, node: ast.Call) -> None:
        for keyword in node.keywords:
            if keyword.arg is None:
                self.refuse(node, "**arguments", "each argument by its name")
        callee = self.callee(node.func)
        if inspect.isfunction(getattr(callee, "py_func", callee)):
            self.check_arguments(node, getattr(callee, "py_func", callee))
            given: list[tuple[int | str, ast.expr]] = [
                *enumerate(node.args),
                *((word.arg, word.value) for word in node.keywords if word.arg),
            ]
            self.calls.append((callee, {place: seen for place, value in given if (seen := self.record_of(value)) is not None}))
        self.generic_visit(node)

    def callee(self, node: ast.expr) -> Any:
        """The function that an expression names, in this file or in a module it imported; None where it is a local matter."""
        if isinstance(node, ast.Name):
            return None if node.id in self.locals else self.names.get(node.id)
        owner = self.callee(node.value) if isinstance(node, ast.Attribute) else None
        return getattr(owner, node.attr, None) if isinstance(node, ast.Attribute) and isinstance(owner, types.ModuleType) else None

    def check_arguments(self, node: ast.Call, function: Any) -> None:
        """Whether a call of a function of the API or of the strategy has arguments that it takes."""
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            return
        shape = inspect.signature(function)
        try:
            shape.bind(*node.args, **{word.arg: word.value for word in node.keywords if word.arg})
        except TypeError as error:
            self.say(node, f"{ast.unparse(node.func)}: {error}", call_of(function))


def call_of(function: Any) -> str:
    """A function's name and arguments, as one calls it."""
    arguments = [
        name if argument.default is argument.empty else f"{name}={'TIF_DAY' if name == 'tif' else argument.default}"
        for name, argument in inspect.signature(function).parameters.items()
    ]
    return f"{function.__name__}({', '.join(arguments)})"


def _did_you_mean(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _fields(dtype: np.dtype) -> list[str]:
    """The fields that a strategy may use: the ring's own words are not among them."""
    return [name for name in dtype.names or () if name not in (EMPTY, "sequence", "age_tsc")]


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0]
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return body[1:] if has_docstring else body
