"""`tickpath book` for whoever sits before it: signals, what is said at the end, exit codes."""

import os
import signal
import sys
from types import FrameType
from typing import Any

import click
from rich.console import Console

from tools.book import Options, write_book
from tools.book_output import STDOUT, OutputError
from tools.cli import EXIT_FAILED, EXIT_MISUSE, EXIT_NO


def run_book(asked: dict[str, Any], json_path: str | None) -> int:
    """Write the tables and say how it went: the exit code."""
    options = Options(**asked)
    if json_path == "-" and options.out in (None, STDOUT) and options.lobster is None:
        click.echo("tickpath: --json=-: the table goes to standard output; name a file for one of the two", err=True)
        return EXIT_MISUSE
    # Ended by a service manager it cleans up as after Ctrl-C.
    told: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        told.append(number)
        raise KeyboardInterrupt

    def lose(lost: "sys.UnraisableHookArgs") -> None:
        # Raised inside a library's callback it goes no further, and that is said here once, not there with a traceback.
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            lost_before(lost)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    lost_before, sys.unraisablehook = sys.unraisablehook, lose
    try:
        result = write_book(options, Console(stderr=True), lambda: bool(told))
    except KeyboardInterrupt:
        click.echo("tickpath: interrupted; nothing was written", err=True)
        return EXIT_NO
    except BrokenPipeError:
        # Whoever read our output has what it wanted; the interpreter would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OutputError as error:
        click.echo(f"tickpath: {error}", err=True)
        return EXIT_FAILED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = lost_before
    for line in lines_of(result):
        click.echo(line, err=True)
    if json_path is not None:
        # Only here: it brings the whole engine with it, and the command starts a fifth faster without.
        from tools.run import write_json

        write_json(result, json_path)
    return 0 if result["whole"] and not result["symbols_missing"] else EXIT_NO


def lines_of(result: dict[str, Any]) -> list[str]:
    """What was written, then everything about it that a careful person would ask."""
    lines = []
    for name, table in result["tables"].items():
        files = "standard output" if table["files"] == ["-"] else ", ".join(table["files"][:2]) or "no file"
        if len(table["files"]) > 2:
            files += f" and {len(table['files']) - 2} more"
        lines.append(f"{table['rows']:,} {'rows' if table['rows'] != 1 else 'row'} of {name}: {files}")
    symbols = "1 symbol" if result["symbols"] == 1 else f"{result['symbols']:,} symbols"
    lines.append(f"{result['messages']:,} messages, {symbols} in {result['seconds']:.1f} s")
    if result["cut_short"]:
        lines.append(f"note: {result['cut_short']}: what came before that is written")
    if result["left_over_bytes"]:
        lines.append(f"note: it ends inside a message, {result['left_over_bytes']} bytes are left over: all whole messages are written")
    for name, said in (
        ("unknown_types", "of types that ITCH 5.0 does not have were skipped"),
        ("malformed", "do not have the length or the values of their type and were skipped"),
        ("unknown_orders", "are about orders that were never added: does the file begin at the start of its day?"),
        ("duplicate_orders", "add orders that are there already and were skipped"),
    ):
        if result[name]:
            lines.append(f"note: {result[name]:,} messages {said}")
    for symbol, near in result["symbols_missing"].items():
        lines.append(f"note: {symbol} is not in the file's directory" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    return lines
