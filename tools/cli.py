"""The `tickpath` command. Exit codes: 0 good, 1 the answer is no, 2 wrong usage or an unusable input, 3 the system failed."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

EXIT_MISUSE, EXIT_FAILED = 2, 3


def explained(command: Callable[..., Any]) -> Callable[..., Any]:
    """A user's mistake is a sentence and exit code 2, a failing system one and 3; a traceback is a bug of ours."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from engine.runtime.clock import ClockError
        from engine.strategy.errors import StrategyError
        from shm.segment import SegmentError

        try:
            return command(*args, **kwargs)
        except (SegmentError, ClockError) as error:
            click.echo(f"tickpath: {error}", err=True)
            sys.exit(EXIT_FAILED)
        except OSError as error:
            click.echo(f"tickpath: {error.filename}: {error.strerror}" if error.filename else f"tickpath: {error}", err=True)
            sys.exit(EXIT_MISUSE)
        except (StrategyError, ValueError) as error:
            click.echo(f"tickpath: {error}", err=True)
            sys.exit(EXIT_MISUSE)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tickpath", message="tickpath %(version)s")
def main() -> None:
    """A low-latency trading engine: three processes, shared-memory rings, strategies in Python."""


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--feed", type=click.Path(path_type=Path), help="Replay this NASDAQ ITCH 5.0 file (plain or gzip) in the simulated exchange.")
@click.option("--seconds", type=click.FloatRange(min=0), help="Trade this long; 0: until the flow ends or Ctrl-C.")
@click.option("--speed", type=click.FloatRange(min=0), help="With --feed: 1 as recorded (default), 10 ten times faster, 0 flat out.")
@click.option("--symbols", default="", help="Trade these, separated by commas; with --feed the busiest ones otherwise.")
@click.option("--json", "json_path", metavar="FILE", help="Write the report as JSON; '-' is standard output.")
@explained
def run(config: Path | None, feed: Path | None, seconds: float | None, speed: float | None, symbols: str, json_path: str | None) -> None:
    """Trade: feed handler, strategy and order gateway, with the simulated exchange where CONFIG has one.

    CONFIG is a TOML file; without one the shipped run is used (see `tickpath config`).
    """
    from engine.runtime.config import DEFAULT_PATH
    from tools import run as runner
    from tools import show

    console = show.console_for(stderr=json_path == "-")
    chosen, notes = runner.config_for(
        config or DEFAULT_PATH, feed=feed, seconds=seconds, speed=speed, symbols=[symbol for symbol in symbols.split(",") if symbol]
    )
    result, code = runner.run(chosen, console, notes)
    if result["traded"]:
        console.print(show.report(result, console.width))
    else:
        _complain(result)
    if json_path is not None:
        runner.write_json(result, json_path)
    sys.exit(code)


def _complain(result: dict[str, Any]) -> None:
    """Why a run did not come to trading."""
    for failure in result["failures"] or [result["ended"]] * bool(result["ended"]):
        click.echo(f"tickpath: {failure}", err=True)


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@explained
def warm(config: Path | None) -> None:
    """Compile every kernel of a run ahead, so that the next start compiles none."""
    import engine
    from engine.runtime.config import DEFAULT_PATH
    from tools import run as runner
    from tools import show

    chosen, notes = runner.config_for(config or DEFAULT_PATH, feed=None, seconds=None, speed=None, symbols=[])
    result, code = runner.run(chosen, show.console_for(), notes, trade=False)
    _complain(result)
    click.echo(f"{result['kernels_compiled']} kernels compiled; all are in {engine.cache_folder()}")
    sys.exit(code)


@main.command("config")
@explained
def show_config() -> None:
    """Print the shipped config, a commented manual of itself: tickpath config > my.toml"""
    from engine.runtime.config import DEFAULT_PATH

    click.echo(DEFAULT_PATH.read_text(), nl=False)


@main.group()
def strategy() -> None:
    """Write a strategy."""


@strategy.command()
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), default=Path(), help="Where to write it (default: here).")
@explained
def new(name: str, folder: Path) -> None:
    """Write NAME.py, a commented strategy that runs, to start from."""
    from engine.strategy.new import write_new

    path = write_new(name, folder)
    click.echo(f'wrote {path}\nrun it: tickpath config > {name}.toml, set use = "./{path.name}" under [strategy], tickpath run {name}.toml')


@main.command()
@click.option("--reason", default="", help="Kept with the kill, up to 48 bytes.")
@click.option("--instance", default="tickpath", show_default=True)
@explained
def kill(reason: str, instance: str) -> None:
    """Block new orders of a running instance and cancel its open ones."""
    from tools.killswitch import set_kill

    set_kill(instance, reason or "by hand")
    click.echo(f"{instance}: new orders are blocked, open ones are being cancelled; `tickpath arm` lets it trade again")


@main.command()
@click.option("--instance", default="tickpath", show_default=True)
@explained
def arm(instance: str) -> None:
    """Let a killed instance trade again."""
    from tools.killswitch import clear_kill

    clear_kill(instance)
    click.echo(f"{instance}: armed")


@main.command()
@click.option("--instance", default="tickpath", show_default=True)
@explained
def clean(instance: str) -> None:
    """Remove the shared memory that a dead instance left behind."""
    from engine.runtime.instance import remove_dead

    removed = remove_dead(instance)
    click.echo("\n".join(f"removed {name}" for name in removed) or f"{instance}: nothing was left behind")


@main.command()
@click.option("--cpus", metavar="LIST", help="Measure these, as in 2-5,8. Default: isolated CPUs, or all but CPU 0's core.")
@click.option("--seconds", type=click.FloatRange(min=0.01, max=86_400), default=10.0, show_default=True, help="How long.")
@click.option("--threshold-ns", default="auto", show_default=True, help="Gaps longer than this; auto: 8 readings of the clock.")
@click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON; '-' is standard output.")
@explained
def jitter(cpus: str | None, seconds: float, threshold_ns: str, json_path: str | None) -> None:
    """Measure how often and how long each CPU is taken away from a process that spins on it, and by whom."""
    from tools import cpus as numbers
    from tools import jitter as meter
    from tools import jitter_show, show
    from tools.run import write_json

    wanted = numbers.worth_measuring() if cpus is None else numbers.parse_list(cpus)
    if not wanted:
        raise ValueError("--cpus=: expected a CPU list such as 2-5,8")
    try:
        result = meter.measure(wanted, seconds, meter.threshold_of(threshold_ns))
    except meter.MeterError as error:
        click.echo(f"tickpath: {error}", err=True)
        sys.exit(EXIT_FAILED)
    if json_path is not None:
        write_json(result, json_path)
    if json_path != "-":
        show.console_for().print(jitter_show.report(result))


@main.command()
@click.option("--config", "config_path", metavar="FILE", type=click.Path(path_type=Path), help="For this run (the shipped one).")
@click.option("--profile", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Of tuning/tune.")
@click.option("--root", hidden=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="A fake machine.")
@click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON; '-' is standard output.")
@explained
def doctor(config_path: Path | None, profile: Path | None, root: Path | None, json_path: str | None) -> None:
    """Is this box fit? Every check and tuning knob, with what it costs and what cures it, the most worthwhile first."""
    from engine.runtime.config import DEFAULT_PATH
    from tools import doctor as doctors
    from tools import doctor_show, show
    from tools.checkup import Machine
    from tools.fitness import current_machine
    from tools.run import write_json

    machine = current_machine() if root is None else Machine(root.resolve(), 0)
    try:
        result = doctors.examine(config_path or DEFAULT_PATH, profile and profile.resolve(), machine)
    except doctors.TuneError as error:
        click.echo(f"tickpath: {error}", err=True)
        sys.exit(EXIT_FAILED)
    if json_path is not None:
        write_json(result, json_path)
    if json_path != "-":
        show.console_for().print(doctor_show.report(result))
    sys.exit(result["exit"])


if __name__ == "__main__":
    main()
