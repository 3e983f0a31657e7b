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
        from engine.runtime.clock import ClockError
        from engine.runtime.latch import Killed
        from engine.strategy.errors import StrategyError
        from shm.segment import SegmentError

        try:
            return command(*args, **kwargs)
        except (SegmentError, ClockError) as error:
            click.echo(f"tickpath: {error}", err=True)
            sys.exit(EXIT_FAILED)
        except Killed as error:
            click.echo(f"tickpath: {error}", err=True)
            sys.exit(EXIT_NO)
        except OSError as error:
            click.echo(
                f"tickpath: {error.filename}: {error.strerror}" if error.filename else f"tickpath: {error.strerror or error}", err=True
            )
            sys.exit(EXIT_MISUSE)
        except (StrategyError, ValueError) as error:
            click.echo(f"tickpath: {error}", err=True)
            sys.exit(EXIT_MISUSE)

    return wrapped


def print_json(value: dict[str, Any]) -> None:
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))
