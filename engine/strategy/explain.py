"""numba's error about a strategy, as a sentence about the strategy: where, what, and what to write instead.

The strategy has been checked before (check.py), so what arrives here is mostly about kinds: a fraction where a whole number belongs,
nothing where something does. numba tells that in a page; the table below knows the lines that matter.
"""

import ast
import re
from collections.abc import Callable, Iterator

import numba

from engine.strategy import api
from engine.strategy.check import call_of
from engine.strategy.errors import Problem
from engine.strategy.handlers import HANDLERS, functions
from engine.strategy.source import Source

OPERATORS = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**", "and_": "&", "or_": "|", "xor": "^",
    "lshift": "<<", "rshift": ">>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=", "neg": "-", "invert": "~",
    "iadd": "+=", "isub": "-=", "imul": "*=", "itruediv": "/=", "ifloordiv": "//=", "imod": "%=", "contains": "in",
}  # fmt: skip

WHOLE = {"px": "a price", "qty": "a quantity", "id": "an order's id"}

ANY = "numbers, State fields, if, for and while; NUMBA_DISABLE_JIT=1 runs the strategy as plain Python, to find what is different here"
MATH = "sqrt, exp, log, floor, ceil, pow, hypot and their like are there; write the others out"


def explain(error: Exception, source: Source, handler: str) -> Problem:
    """The problem behind a numba error that came while `handler` was compiled."""
    text = str(error)
    where, line, function = _place(text, source, handler)
    if isinstance(error, KeyError):
        where, line, function = _attribute(str(error.args[0]), source) or (where, line, function)
    what, instead = next(_matching(text, error), (_last_words(text), ANY))
    return where.problem(line, f"in {function}: {what}", instead)


def _matching(text: str, error: Exception) -> Iterator[tuple[str, str]]:
    if isinstance(error, KeyError):
        yield f"a record has no field {error.args[0]}", "a field that it has"
    for pattern, told in TABLE:
        if found := re.search(pattern, text, re.DOTALL):
            yield told(found, text)


def _whole(found: re.Match[str], text: str) -> tuple[str, str]:
    name = WHOLE[found[2]]
    kind = words(found[1])
    rounding = ": `int(...) // tick * tick` rounds down to a price step" if found[2] == "px" else ": int(...) cuts a fraction off"
    return f"{name} is given as {kind}", "a whole number" + (rounding if "fraction" in kind else "")


def _in_the_api(found: re.Match[str], text: str) -> tuple[str, str]:
    called = [name for name in re.findall(r"<function (\w+) at", text) if name in api.__all__]
    function = getattr(api, called[-1], None) if called else None
    if function is None:
        return _last_words(text), ANY
    return f"{called[-1]} is not given what it takes, in this order", call_of(function.py_func)


def _attribute_of_module(found: re.Match[str], text: str) -> tuple[str, str]:
    return f"{found[2]}.{found[1]} is not there in compiled code", MATH


def _attribute_of_value(found: re.Match[str], text: str) -> tuple[str, str]:
    return f"{words(found[2])} has no {found[1]}", "a field of quote, trade, report, params or state"


def _two_kinds(found: re.Match[str], text: str) -> tuple[str, str]:
    name = found[3].partition(".")[0]
    return f"{name} is {words(found[1])} on one way here and {words(found[2])} on another", f"one kind of value for {name} on every way"


def _not_stored(found: re.Match[str], text: str) -> tuple[str, str]:
    return f"{words(found[1])} is put where {words(found[2])} belongs", "a value of the kind that the field was declared with"


def _operation(found: re.Match[str], text: str) -> tuple[str, str]:
    arguments = [words(argument) for argument in _split(found[2])]
    if found[1] in ("getitem", "static_getitem"):
        return (
            f"{arguments[0]} cannot be indexed by {arguments[-1]}",
            "a number known when the file is written (W[2]), or a loop over it (for w in W)",
        )
    if found[1] in OPERATORS:
        instead = "a function that returns a number on every way" if "nothing" in arguments else "numbers, and whole ones for & | ^ << >>"
        return f"`{OPERATORS[found[1]]}` between {' and '.join(arguments)}", instead
    return f"{found[1]} does not take {' and '.join(arguments)}", "numbers"


def _called(found: re.Match[str], text: str) -> tuple[str, str]:
    return f"{words(found[1])} is called like a function", "a function of this file, of the API, or of math"


# What numba says, and what it means; the first that fits is told. {1}, {2}: its types.
Told = Callable[[re.Match[str], str], tuple[str, str]]
TABLE: list[tuple[str, Told]] = [
    (r">>> or_\(([^\n]+), Literal\[int\]\(0\)\).*?<function whole_(px|qty|id) at", _whole),
    (r"runaway recursion", lambda found, text: ("a function calls itself without end", "a loop, or a return before it calls itself")),
    (r"Failed in .*?File \"[^\"\n]*engine/strategy/hot/\w+\.py\"", _in_the_api),
    (
        r"NRT required but not enabled|NRT_Allocate",
        lambda found, text: ("it would allocate memory while it trades", "numbers, and tuples of fixed length"),
    ),
    (r"Unknown attribute '(\w+)' of type Module\(<module '([\w.]+)'", _attribute_of_module),
    (r"Unknown attribute '(\w+)' of type ([^\n]+)", _attribute_of_value),
    (r"Cannot unify ([^\n]+) and ([^\n]+) for '([^']+)', defined", _two_kinds),
    (r"Can't unify return type", lambda found, text: ("it returns different kinds of values", "the same kind at every return")),
    (r"Cannot cast ([^\n]+?) to (\w+)", _not_stored),
    (r"No type info available for ([^\n]+) as a callable", _called),
    (
        r"Invalid use of getiter with parameters \(([^\n]+)\)",
        lambda found, text: (f"{words(found[1])} cannot be looped over", "range(...), or a tuple"),
    ),
    (r">>> (\w+)\(([^\n]*)\)\n", _operation),
    (r"tuple index out of range", lambda found, text: ("the index is outside the tuple", "an index from 0 to its length less 1")),
    (
        r"[Uu]ntyped global name '(\w+)'",
        lambda found, text: (f"{found[1]} is nothing that compiled code can use", "a number or a function of this file"),
    ),
]


def words(kind: str) -> str:
    """A numba type in words."""
    kind = kind.strip()
    if kind.startswith("Record("):
        return next((f"the record `{name}`" for name, dtype in HANDLERS.values() if str(numba.from_dtype(dtype)) == kind), "a record")
    if kind.startswith(("Tuple(", "UniTuple(")):
        return f"a tuple of {_length(kind)}"
    for pattern, said in WORDS:
        if re.match(pattern, kind):
            return said
    return kind


WORDS = [
    (r"(Literal\[int\]|u?int\d+)", "a whole number"),
    (r"float\d+", "a number with a fraction"),
    (r"(Literal\[bool\]|bool)", "true or false"),
    (r"none", "nothing"),
    (r"Context", "`ctx`"),
    (r"slice", "a slice"),
    (r"(Literal\[str\]|unicode)", "text"),
    (r"type\(CPUDispatcher", "a function"),
    (r"Module", "a module"),
    (r"Optional", "a number or nothing"),
]


def _place(text: str, source: Source, handler: str) -> tuple[Source, int, str]:
    """Where the error is: the first place in a file of the strategy that numba names, else the handler itself."""
    named = [
        (found.start(), each, int(found[1])) for each in source.all() for found in re.finditer(re.escape(each.file) + r" \((\d+)\)", text)
    ]
    if not named:
        return source, functions(source.tree)[handler].lineno, handler
    _, where, line = min(named, key=lambda place: place[0])
    return where, line, _function_at(where, line) or handler


def _function_at(source: Source, line: int) -> str | None:
    return next((name for name, node in functions(source.tree).items() if node.lineno <= line <= (node.end_lineno or line)), None)


def _attribute(name: str, source: Source) -> tuple[Source, int, str] | None:
    """The first use of an attribute of this name: numba does not say where one is missing from a record."""
    for each in source.all():
        for function, node in functions(each.tree).items():
            for part in ast.walk(node):
                if isinstance(part, ast.Attribute) and part.attr == name:
                    return each, part.lineno, function
    return None


def _split(arguments: str) -> list[str]:
    """Types separated by commas, but for the commas inside them."""
    parts, depth = [""], 0
    for letter in arguments:
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]


def _length(kind: str) -> str:
    """How many elements a tuple type has."""
    inside = kind.partition("(")[2].rpartition(")")[0]
    return inside.rpartition(" x ")[2] if kind.startswith("Uni") else str(len(_split(inside)))


def _last_words(text: str) -> str:
    """The first line of an unknown error that is not about numba's own pipeline, without a full stop."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("Failed in", "During:", "File "))]
    said = lines[0] if lines else text.strip() or "it cannot be compiled"
    return f"numba says: {said[:200].rstrip('.')}"
