"""The house rules, as code. Every complaint names file and line, and says what is wrong.

A hot file (hot.py, hot/*.py, shm/atomics.py) holds kernels: free functions over arrays, records and integers, compiled with a
cache. It may not do what the interpreter or an allocator would have to do, and imports only what cannot do it either.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from engine import WIRE_TABLES

ROOT = Path(__file__).parents[1]

# An import only ever points to the same room or one further up this list (design: from bytes to processes).
ROOMS = [
    "shm", "engine.layout", "engine.generated", "engine.wire", "engine.messages", "engine.book", "engine.feed", "engine.strategy",
    "engine.risk", "engine.gateway", "engine.exchange", "engine.runtime", "tools",
]  # fmt: skip

TOP_FOLDERS = {"shm", "engine", "tools", "perf"}

# math and errno are constants and functions that numba compiles.
OUTSIDE_A_HOT_FILE = {"numpy", "numba", "typing", "math", "errno"}
# Where the ordering instructions and system calls are made, code runs at compile time, and has plain twins.
MORE_IMPORTS = {
    "shm/atomics.py": {"llvmlite", "shm._shim"},
    "engine/wire/hot/syscalls.py": {"ctypes", "os"},
}
COMPILE_TIME = {"shm/atomics.py"}

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
# path:function of kernels that may be longer, each with its reason.
LONGER_FUNCTIONS: dict[str, str] = {}
LONGER_FILES: dict[str, str] = {}

BANNED = {
    ast.Try: "try: return a value instead",
    ast.Raise: "raise: return a negative value instead",
    ast.With: "with",
    ast.Assert: "assert: it is an exception and a string",
    ast.JoinedStr: "f-string",
    ast.Dict: "dict",
    ast.Set: "set",
    ast.List: "list: it allocates; take an array as argument",
    ast.ListComp: "list comprehension: it allocates",
    ast.SetComp: "set comprehension",
    ast.DictComp: "dict comprehension",
    ast.GeneratorExp: "generator",
    ast.Lambda: "lambda: it cannot be cached",
    ast.Global: "global: take state as an argument",
    ast.Nonlocal: "nonlocal",
    ast.Yield: "yield",
    ast.Await: "await",
}
BANNED_CALLS = {
    "print": "print",
    "open": "open",
    "getattr": "getattr",
    "isinstance": "isinstance",
    "zeros": "zeros: it allocates; take an array as argument",
    "empty": "empty: it allocates; take an array as argument",
    "copy": "copy: it allocates",
}


@cache
def tracked() -> list[Path]:
    """Files that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in sorted(set(names)) if name and (ROOT / name).is_file()]


@cache
def sources() -> dict[str, ast.Module]:
    """Every Python file of the rooms by its path from the root, parsed. (Some files under tests/ are broken on purpose.)"""
    names = {path: path.relative_to(ROOT) for path in tracked() if path.suffix == ".py"}
    return {name.as_posix(): ast.parse(path.read_text()) for path, name in names.items() if name.parts[0] in TOP_FOLDERS}


def is_hot(name: str) -> bool:
    path = Path(name)
    return path.parts[0] in TOP_FOLDERS and (
        path.name in ("hot.py", "atomics.py") or (path.parent.name == "hot" and path.name != "__init__.py")
    )


def is_layout_or_table(name: str) -> bool:
    return Path(name).name == "layout.py" or Path(name).name in WIRE_TABLES


def hot_sources() -> dict[str, ast.Module]:
    return {name: tree for name, tree in sources().items() if is_hot(name)}


def module_file(module: str) -> str | None:
    """The file of a module of this repository."""
    path = module.replace(".", "/")
    return next((name for name in (f"{path}.py", f"{path}/__init__.py") if (ROOT / name).is_file()), None)


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and module of every import anywhere in a file; `from package import module` counts as that module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node.lineno, inner if module_file(inner) else node.module


def kernels(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """The functions of a file, but for the plain twins under `if config.DISABLE_JIT`."""
    for node in live(tree):
        if isinstance(node, ast.FunctionDef):
            yield node


def live(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "config.DISABLE_JIT":
            yield from node.orelse
        else:
            yield node


def decorator_of(function: ast.FunctionDef) -> ast.Call | None:
    """The one njit(...) call that decorates a kernel."""
    if len(function.decorator_list) == 1:
        (decorator,) = function.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) in ("njit", "numba.njit"):
            return decorator
    return None


def docstring_of(function: ast.FunctionDef) -> ast.expr | None:
    first = function.body[0]
    return first.value if ast.get_docstring(function) and isinstance(first, ast.Expr) else None


def report(complaints: list[str]) -> None:
    assert not complaints, "\n" + "\n".join(complaints)


def test_the_rules_look_at_something() -> None:
    assert {"shm/hot.py", "shm/atomics.py", "engine/messages/hot/stamp.py", "engine/wire/hot/bytes.py"} <= hot_sources().keys()
    assert all(module_file(room) or (ROOT / room.replace(".", "/")).is_dir() for room in ROOMS)


def test_hot_files_import_only_hot_files_and_layouts() -> None:
    complaints = []
    for name, tree in hot_sources().items():
        allowed = OUTSIDE_A_HOT_FILE | MORE_IMPORTS.get(name, set())
        for line, module in imports(tree):
            file = module_file(module)
            if {module, module.split(".")[0]} & allowed or (file and (is_hot(file) or is_layout_or_table(file))):
                continue
            complaints.append(f"{name}:{line}: a hot file imports {module}; move what it needs into a hot file or a layout")
    report(complaints)


def test_kernels_are_compiled_with_a_cache_and_without_reference_counts() -> None:
    complaints = []
    for name, tree in hot_sources().items():
        if name in COMPILE_TIME:
            continue
        for function in kernels(tree):
            decorator = decorator_of(function)
            if decorator is None:
                complaints.append(f"{name}:{function.lineno}: {function.name} is not decorated with njit(...) and nothing else")
                continue
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in decorator.keywords}
            if given.get("cache") != "True":
                complaints.append(f"{name}:{function.lineno}: {function.name} without cache=True compiles at every start")
            if given.get("_nrt") != "False":
                complaints.append(
                    f"{name}:{function.lineno}: {function.name} without _nrt=False counts references with locked instructions"
                )
    report(complaints)


def test_kernels_that_python_cannot_call_are_not_named_where_it_would() -> None:
    """A wrapper to be called from Python is a third of what a kernel costs to compile, so those that only kernels call have none. Called
    from Python all the same, such a kernel ends the process without a word."""
    bare = {
        function.name: f"{name}:{function.lineno}"
        for name, tree in hot_sources().items()
        for function in kernels(tree)
        if (decorator := decorator_of(function)) and any(keyword.arg == "no_cpython_wrapper" for keyword in decorator.keywords)
    }
    assert bare
    complaints = []
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        if path.suffix != ".py" or is_hot(name) or name.startswith("tests/strategies/bad"):
            continue
        for line, named in names_in(ast.parse(path.read_text())):
            if named in bare:
                complaints.append(f"{name}:{line}: {named} has no wrapper ({bare[named]}): give it one, or another name here")
    report(complaints)


def names_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, alias.name) for alias in node.names)


def test_kernels_do_nothing_that_takes_the_interpreter_or_memory() -> None:
    complaints = []
    for name, tree in hot_sources().items():
        if name not in COMPILE_TIME:
            complaints += [f"{name}:{line}: {function}: {what}" for function, line, what in forbidden_in(tree)]
    report(complaints)


def forbidden_in(tree: ast.Module) -> Iterator[tuple[str, int, str]]:
    """Function, line and description of everything in the kernels of a file that a kernel must not do."""
    for function in kernels(tree):
        nodes = [node for statement in function.body for node in ast.walk(statement)]
        # record["flags"] is how a field is named whose name an array has for itself.
        names = {id(node.slice) for node in nodes if isinstance(node, ast.Subscript)} | {id(docstring_of(function))}
        for node in nodes:
            line = getattr(node, "lineno", function.lineno)
            if type(node) in BANNED:
                yield function.name, line, BANNED[type(node)]
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield function.name, line, f"{node.name} is defined inside a kernel: a closure cannot be cached"
            elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in names:
                yield function.name, line, f"string {node.value!r}"
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func).split(".")[-1]
                if called in BANNED_CALLS and ast.unparse(node.func) in (called, f"np.{called}"):
                    yield function.name, line, BANNED_CALLS[called]


# A loop may fill a table of constants.
TOP_LEVEL = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.Assign | ast.AnnAssign | ast.For | ast.Expr | ast.Assert


def test_hot_files_hold_kernels_handles_and_constants_only() -> None:
    complaints = []
    for name, tree in hot_sources().items():
        if name in COMPILE_TIME:
            continue
        for node in live(tree):
            if isinstance(node, ast.ClassDef):
                if [ast.unparse(base) for base in node.bases] != ["NamedTuple"]:
                    complaints.append(f"{name}:{node.lineno}: class {node.name}: only NamedTuple handles are hot")
            elif not isinstance(node, TOP_LEVEL):
                complaints.append(f"{name}:{node.lineno}: {type(node).__name__} at the top of a hot file")
            elif isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
                complaints.append(f"{name}:{node.lineno}: {ast.unparse(node.value)[:60]} runs when a hot file is imported")
    report(complaints)


def room_of(module: str) -> int | None:
    return next((rank for rank, room in enumerate(ROOMS) if module == room or module.startswith(f"{room}.")), None)


def test_imports_only_point_towards_the_bytes() -> None:
    complaints = []
    for name, tree in sources().items():
        own = room_of(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        if own is None:
            continue
        for line, module in imports(tree):
            other = room_of(module)
            if other is not None and other > own:
                complaints.append(f"{name}:{line}: {ROOMS[own]} imports {module}, which lies further up: {ROOMS[other]}")
            elif module.split(".")[0] in ("perf", "tests") and not name.startswith(("perf/", "tests/")):
                complaints.append(f"{name}:{line}: {ROOMS[own]} imports {module}")
            elif ROOMS[own] == "shm" and module.split(".")[0] == "engine":
                complaints.append(f"{name}:{line}: shm imports {module}: it knows no trading word")
    report(complaints)


# Written in two parts, so that this file does not hold what it looks for.
LEFTOVERS = [
    (re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b"), "finish it, or file an issue"),
    (re.compile(r"(?<![\w.}])/(wo" r"rk|ro" r"ot|ho" r"me/\w+)/"), "a path of one machine"),
    (re.compile(r"\bbreak" r"point\(\)|\bpdb\b"), "a debugger"),
]


def text_files() -> Iterator[tuple[str, list[str]]]:
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data:
            yield path.relative_to(ROOT).as_posix(), data.decode("utf-8", "replace").splitlines()


def test_nothing_is_left_over() -> None:
    report(
        [
            f"{name}:{number}: {found.group()!r}: {why}"
            for name, lines in text_files()
            for number, line in enumerate(lines, start=1)
            for pattern, why in LEFTOVERS
            if (found := pattern.search(line))
        ]
    )


def test_kernels_fit_a_screen() -> None:
    complaints = []
    for name, tree in hot_sources().items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and f"{name}:{function.name}" not in LONGER_FUNCTIONS:
                length = (function.end_lineno or 0) - function.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    complaints.append(
                        f"{name}:{function.lineno}: {function.name} has {length} lines, at most {FUNCTION_LINES_MAX}: split it"
                    )
    report(complaints)


def test_files_are_short_enough_to_read() -> None:
    """Tests may be longer: they are looked up, not read through."""
    code = {".py", ".c", ".h", ".sh"}
    report(
        [
            f"{name}:{FILE_LINES_MAX}: the file has {len(lines)} lines, at most {FILE_LINES_MAX}: split it"
            for name, lines in text_files()
            if Path(name).suffix in code and Path(name).parts[0] != "tests" and len(lines) > FILE_LINES_MAX and name not in LONGER_FILES
        ]
    )


def test_exceptions_to_the_rules_still_exist() -> None:
    assert not [name for name in (*MORE_IMPORTS, *COMPILE_TIME, *LONGER_FILES) if not (ROOT / name).is_file()]
    for place in LONGER_FUNCTIONS:
        name, _, function = place.partition(":")
        assert any(kernel.name == function for kernel in kernels(sources()[name])), place


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("try:\n        pass\n    except ValueError:\n        pass", "try"),
        ("raise ValueError", "raise"),
        ("with x:\n        pass", "with"),
        ("return f'{x}'", "f-string"),
        ("return {}", "dict"),
        ("return {1}", "set"),
        ("return [1]", "list"),
        ("return [i for i in x]", "list comprehension"),
        ("global y", "global"),
        ("print(x)", "print"),
        ("return 'text'", "string"),
        ("return lambda: 0", "lambda"),
        ("def inner():\n        return x", "closure"),
        ("return np.zeros(3)", "allocates"),
    ],
)
def test_the_rules_find_what_they_forbid(code: str, what: str) -> None:
    tree = ast.parse(f'@njit(cache=True)\ndef kernel(x):\n    """A kernel."""\n    {code}\n')
    found = list(forbidden_in(tree))
    assert any(what in description for _, _, description in found), found
    assert not list(forbidden_in(ast.parse('@njit(cache=True)\ndef kernel(x):\n    """A kernel."""\n    x[0] = (1, 2.0)[0]\n')))
