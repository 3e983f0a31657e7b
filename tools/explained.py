"""What every command has in common: exit codes, errors as sentences, JSON."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

EXIT_NO, EXIT_MISUSE, EXIT_FAILED = 1, 2, 3


def explained(command: Callable[..., Any]) -> Callable[..., Any]:
    """A user's mistake is a sentence and exit code 2, a failing system one and 3; a traceback is a bug of ours."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            found = _explanation(error)
            if found is None:
                raise
            code, sentence = found
            click.echo(f"tickpath: {sentence}", err=True)
            sys.exit(code)

    return wrapped


def _explanation(error: Exception) -> tuple[int, str] | None:
    """The exit code and sentence of an error that is no bug of ours. Its classes are loaded here and not before a command that needs
    none of them: with them comes numba."""
    from engine.runtime.clock import ClockError
    from engine.runtime.latch import Killed
    from engine.strategy.errors import StrategyError
    from shm.segment import SegmentError

    match error:
        case SegmentError() | ClockError():
            return EXIT_FAILED, str(error)
        case Killed():
            return EXIT_NO, str(error)
        case OSError():
            return EXIT_MISUSE, f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        case StrategyError() | ValueError():
            return EXIT_MISUSE, str(error)
    return None


def print_json(value: dict[str, Any]) -> None:
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))
