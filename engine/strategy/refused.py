"""What Python has and a trading loop has not, with what to write instead: the tables behind check.py."""

import ast

NUMBERS = "numbers in the fields of your State class (one record for each instrument), or a tuple of fixed length"
RETURNS = "test before you act (`if qty > 0:`), and return early; the order functions never raise, they return 0"
ONE_WAY = "an `if` or a loop in a plain function at the top of the file"

# Python that has no place in a handler: what it is, and what to write instead.
REFUSED: dict[type[ast.AST], tuple[str, str]] = {
    ast.Try: ("try/except", RETURNS),
    ast.TryStar: ("try/except", RETURNS),
    ast.Raise: ("raise", RETURNS),
    ast.Assert: ("assert", RETURNS),
    ast.With: ("with", "open files and the like outside the strategy: while it trades nothing is opened or closed"),
    ast.AsyncWith: ("async with", "a plain function: events come to the handlers"),
    ast.AsyncFor: ("async for", "a plain function: events come to the handlers"),
    ast.Await: ("await", "a plain function: events come to the handlers"),
    ast.Yield: ("yield", "a plain function that returns its value; keep what it must remember in State"),
    ast.YieldFrom: ("yield from", "a plain function that returns its value; keep what it must remember in State"),
    ast.JoinedStr: ("an f-string", "numbers: text is not made while trading; reports and counters show what happened"),
    ast.Dict: ("a dict {...}", NUMBERS),
    ast.DictComp: ("a dict comprehension", NUMBERS),
    ast.Set: ("a set {...}", NUMBERS),
    ast.SetComp: ("a set comprehension", NUMBERS),
    ast.List: ("a list [...]", NUMBERS),
    ast.ListComp: ("a list comprehension", "a `for` loop that adds up what you need, or a tuple of fixed length"),
    ast.GeneratorExp: ("a generator expression", "a `for` loop that adds up what you need"),
    ast.ClassDef: ("a class", "Parameters and State at the top of the file hold all there is"),
    ast.Lambda: ("lambda", ONE_WAY),
    ast.FunctionDef: ("a function inside a function", "a plain function at the top of the file"),
    ast.AsyncFunctionDef: ("an async function", "a plain function at the top of the file"),
    ast.Import: ("an import inside a function", "the import at the top of the file"),
    ast.ImportFrom: ("an import inside a function", "the import at the top of the file"),
    ast.Global: ("global", "a State field: what a strategy remembers lives there, for each instrument"),
    ast.Nonlocal: ("nonlocal", "a State field: what a strategy remembers lives there, for each instrument"),
    ast.Delete: ("del", "an assignment of 0"),
    ast.Match: ("match", "if and elif"),
    ast.Starred: ("*arguments", "each argument by itself"),
    ast.Slice: ("a slice", "the elements one by one"),
}

# Built-in functions that compile to arithmetic.
BUILTINS = {"abs", "bool", "divmod", "float", "int", "len", "max", "min", "pow", "range", "round"}
BUILTIN_ADVICE = {
    "print": "nothing here: printing waits for the interpreter; under NUMBA_DISABLE_JIT=1, with engine.strategy.drive, a handler may print",
    "open": "parameters in the config: while it trades nothing is opened",
    "str": "numbers: text is not made while trading",
    "sum": "a `for` loop",
    "sorted": "min and max, or State fields kept in order",
}

# numpy's scalar functions and constants. The others make arrays, which allocates.
NUMPY_SCALARS = frozenset(
    {
        *("abs", "absolute", "cbrt", "ceil", "copysign", "cos", "e", "exp", "exp2", "expm1", "fabs", "float64", "floor", "fmax", "fmin"),
        *("hypot", "inf", "int64", "isfinite", "isinf", "isnan", "log", "log10", "log1p", "log2", "maximum", "minimum", "nan", "pi"),
        *("power", "rint", "sign", "sin", "sqrt", "square", "tan", "tanh", "trunc"),
    }
)
