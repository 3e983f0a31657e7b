"""A strategy, from its name to the kernel of its turn: read, check, execute, generate, compile.

loaded = load("./mine.py")              StrategyError: what is wrong with it, in its author's words
loaded.params({"size": 100})            the values of [strategy.params], checked
loaded.compile(state)                   the turn's kernel, compiled or taken from the cache
"""

import ast
import inspect
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numba
import numpy as np
from numba import njit
from numba.core.errors import NumbaWarning

from engine.generated import import_module, write_module
from engine.messages.hot.stamp import Clock
from engine.strategy import compose, fields
from engine.strategy.check import PLAIN_PYTHON, check_functions
from engine.strategy.errors import FieldError, StrategyError, raise_problems
from engine.strategy.explain import explain
from engine.strategy.handlers import HANDLERS, check_handlers, functions
from engine.strategy.hot.state import Strategy, context_of
from engine.strategy.source import Source, read
from engine.strategy.vet import can_fail, fractions_lost

# How a strategy's functions are compiled: into the turn that calls them, without reference counts, and with IEEE division (a
# division by zero gives 0 for whole numbers and inf or nan for others) because nobody could catch an exception there.
KERNEL: dict[str, Any] = {"error_model": "numpy", "forceinline": True, "_nrt": False}


@dataclass(frozen=True)
class Loaded:
    """A strategy that can run: its files, its classes, the handlers it has, and the module of its turn."""

    source: Source
    module: types.ModuleType
    kernels: list[Any]
    params_class: type[msgspec.Struct] | None
    state_class: type[msgspec.Struct] | None
    handlers: tuple[str, ...]
    turn: str
    folder: Path
    step: Callable[..., Any]

    def params(self, given: dict[str, Any]) -> np.recarray:
        """[strategy.params] as the one record that handlers read, shape (1,)."""
        return fields.make_records(fields.parameters(self.params_class, given), 1, fields.record_dtype(self.params_class))

    def memory(self, count: int) -> np.recarray:
        """State records at their defaults, shape (count,)."""
        return fields.make_records(fields.initial(self.state_class), count, fields.record_dtype(self.state_class))

    def compile(self, state: Strategy, clock: Clock) -> None:
        """Compile the turn for this state, or find it in the cache. StrategyError where numba cannot compile the strategy.

        The handlers come first, one by one: so each mistake is told where it is, and none is told as the turn's own. Once they
        are known to be good, a mark beside the turn's file says so, and later starts go straight to the cache.
        """
        if PLAIN_PYTHON:
            return
        mark = self.folder / f"{self.turn}.good"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumbaWarning)
            if not mark.exists():
                self._compile_handlers(state, clock)
            self.step.compile((numba.typeof(state), numba.typeof(clock)))  # type: ignore[attr-defined]
        mark.touch()

    def _compile_handlers(self, state: Strategy, clock: Clock) -> None:
        context = numba.typeof(context_of.py_func(state, clock))
        problems = []
        for handler in self.handlers:
            event = numba.from_dtype(HANDLERS[handler][1])
            kernel = getattr(self.module, handler)
            try:
                kernel.compile((context, numba.from_dtype(state.params.dtype), numba.from_dtype(state.memory.dtype), event))
            except Exception as error:
                problems.append(explain(error, self.source, handler))
            else:
                problems += can_fail(kernel, self.source)
        raise_problems([*problems, *fractions_lost(self.kernels, self.source)])


def load(strategy: str) -> Loaded:
    """Load the strategy named by a module or a path. StrategyError says what is wrong with it."""
    source = read(strategy)
    raise_problems(list(check_handlers(source)))
    modules: dict[str, types.ModuleType] = {}
    module = _execute(source, modules)
    with _located(source):
        params_class = _only_class(source, module, fields.Parameters)
        state_class = _only_class(source, module, fields.State)
        fields.initial(state_class)
    raise_problems(list(check_functions(source, module, params_class, state_class)))
    handlers = tuple(handler for handler in HANDLERS if handler in functions(source.tree))
    text = compose.compose(source.name, module.__name__, handlers)
    turn = compose.turn_name(source.name, text, source.content() + _constants(module))
    folder = compose.turns_folder()
    write_module(folder, turn, text)
    kernels = [value for each in modules.values() for value in vars(each).values() if _is_own(value, each)]
    return Loaded(source, module, kernels, params_class, state_class, handlers, turn, folder, import_module(folder, turn).step)


def _execute(source: Source, done: dict[str, types.ModuleType]) -> types.ModuleType:
    """Execute a source's top level as a module of its own, after those it imports; its functions become kernels.

    The module is named by its content: the name is part of what numba caches, and two strategies may have a helpers.py each.
    """
    if source.file in done:
        return done[source.file]
    siblings = {name: _execute(sibling, done) for name, sibling in source.siblings.items()}
    module = types.ModuleType(f"tickpath_strategy_{source.name}_{source.content()[:16]}")
    module.__file__ = source.file
    done[source.file] = module
    sys.modules[module.__name__] = module
    with _standing_in(siblings), _located(source):
        exec(compile(source.tree, source.file, "exec"), vars(module))
    for name, value in list(vars(module).items()):
        if inspect.isfunction(value) and value.__code__.co_filename == source.file:
            setattr(module, name, njit(**KERNEL)(value))
    return module


def _is_own(value: Any, module: types.ModuleType) -> bool:
    """Whether a global of a strategy's module is a kernel that was written in it."""
    plain = getattr(value, "py_func", None)
    return plain is not None and plain.__module__ == module.__name__


@contextmanager
def _standing_in(siblings: dict[str, types.ModuleType]) -> Iterator[None]:
    """While a file is executed, its imports of the files beside it find these modules."""
    before = {name: sys.modules.get(name) for name in siblings}
    sys.modules.update(siblings)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


@contextmanager
def _located(source: Source) -> Iterator[None]:
    """An exception of a strategy's own top level becomes a StrategyError with its line."""
    try:
        yield
    except FieldError as error:
        line = _line_of(source, error.owner, error.field)
        raise StrategyError(source.problem(line, f"{error.owner}.{error.field}{error.what}", error.instead).text()) from None
    except StrategyError:
        raise
    except Exception as error:
        lines = [frame.lineno or 0 for frame in traceback.extract_tb(error.__traceback__) if frame.filename == source.file]
        problem = source.problem(
            lines[-1] if lines else 0, f"{type(error).__name__}: {error}", "correct it: the top of a file runs at the start"
        )
        raise StrategyError(problem.text()) from None


def _line_of(source: Source, owner: str, field: str = "") -> int:
    """The line of a class of the file, or of a field in it; 0 where it is written some other way."""
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef) and node.name == owner:
            lines = [part.lineno for part in node.body if isinstance(part, ast.AnnAssign) and ast.unparse(part.target) == field]
            return lines[0] if lines else node.lineno
    return 0


def _only_class(source: Source, module: types.ModuleType, base: type[msgspec.Struct]) -> type[msgspec.Struct] | None:
    """The file's own subclass of Parameters or State, or None."""
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value is not base and value.__module__ == module.__name__
    ]
    parts = {plain for kind in found for plain in fields.field_types(kind).values()}
    found = [kind for kind in found if kind not in parts]
    if len(found) > 1:
        names = ", ".join(kind.__name__ for kind in found)
        what = f"{names}: several {base.__name__} classes"
        raise StrategyError(source.problem(_line_of(source, found[1].__name__), what, "one, with all the fields").text())
    return found[0] if found else None


def _constants(module: types.ModuleType) -> str:
    """The numbers at the top of the file, and of the files it imports: compiled code has them frozen into it."""
    frozen = []
    for name, value in sorted(vars(module).items()):
        if isinstance(value, int | float | tuple | np.generic):
            frozen.append(f"{name}={value!r}")
        elif isinstance(value, types.ModuleType) and value.__name__.startswith("tickpath_strategy_"):
            frozen.append(f"{name}({_constants(value)})")
    return ";".join(frozen)
