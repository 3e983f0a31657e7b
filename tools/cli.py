"""The `tickpath` command. Exit codes: 0 good, 1 the answer is no, 2 wrong usage or an unusable input, 3 the system failed."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tools.explained import EXIT_FAILED, EXIT_NO, explained, print_json
from tools.explained import EXIT_MISUSE as EXIT_MISUSE
from tools.kill_cli import arm, kill
from tools.risk_cli import risk


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tickpath", message="tickpath %(version)s")
def main() -> None:
    """A low-latency trading engine: three processes, shared-memory rings, strategies in Python."""
    from engine.wire.credentials import take_environment

    # Before anything else reads the environment, and copies it.
    take_environment()


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option(
    "--feed",
    type=click.Path(path_type=Path),
    help="Replay this NASDAQ ITCH 5.0 file in the simulated exchange, or feed this packet capture (pcap, pcapng).",
)
@click.option("--seconds", type=click.FloatRange(min=0), help="Trade this long; 0: until the flow ends or Ctrl-C.")
@click.option("--speed", type=click.FloatRange(min=0), help="With --feed: 1 as recorded (default), 10 ten times faster, 0 flat out.")
@click.option("--symbols", default="", help="Trade these, separated by commas; with --feed the busiest ones otherwise.")
@click.option("--paper", is_flag=True, help="Trade the feed's market on paper: no order leaves this machine.")
@click.option("--json", "json_path", metavar="FILE", help="Write the report as JSON; '-' is standard output.")
@explained
def run(
    config: Path | None, feed: Path | None, seconds: float | None, speed: float | None, symbols: str, paper: bool, json_path: str | None
) -> None:
    """Trade: feed handler, strategy and order gateway, with the simulated exchange where CONFIG has one.

    CONFIG is a TOML file; without one the shipped run is used (see `tickpath config`).
    """
    from engine.runtime.config import DEFAULT_PATH
    from tools import run as runner
    from tools import show

    console = show.console_for(stderr=json_path == "-")
    chosen, notes = runner.config_for(
        config or DEFAULT_PATH, feed=feed, seconds=seconds, speed=speed, symbols=[symbol for symbol in symbols.split(",") if symbol],
        paper=paper,
    )  # fmt: skip
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
@click.option("--instance", metavar="NAME", help="Only what belongs to this instance (default: everything on this box).")
@click.option("--long", is_flag=True, help="Several lines for each ring: every reader, heartbeats, pages.")
@click.option("--hung-after", metavar="MS", type=click.FloatRange(min=0), default=1000, show_default=True, help="Silent for so long: hung.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@explained
def rings(instance: str | None, long: bool, hung_after: float, as_json: bool) -> None:
    """List every ring, board and table: who is at it, how far behind, what was lost.

    Exits with 1 where somebody should look: a process at a ring is dead or hangs, something was left behind or cannot be looked into.
    """
    from tools import rings as listing

    found = listing.survey(instance, hung_after_ms=hung_after, placement=long or as_json)
    if as_json:
        print_json(found.to_dict())
    else:
        lines = listing.table_of(found) + ["", *map(str, found.rings)] * long
        click.echo("\n".join(lines) or f"{instance or 'this box'}: no rings, boards or tables")
    sys.exit(0 if found.well and not (found.empty and instance) else EXIT_NO)


@main.command()
@click.argument("ring")
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--last", metavar="N", type=click.IntRange(min=0), help="Begin with the newest N messages (default: 10).")
@click.option("--from", "start", metavar="POSITION", help="Begin at this position, or at 'oldest' or 'newest'.")
@click.option("--seconds", metavar="N", type=click.FloatRange(min=0), help="Follow for so long.")
@click.option("--schema", is_flag=True, help="Print the layout of the records instead.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@explained
def inspect(ring: str, follow: bool, last: int | None, start: str | None, seconds: float | None, schema: bool, as_json: bool) -> None:
    """Print what lies on RING, decoded by its own schema: any ring, board or table of any instance.

    RING is a name as `tickpath rings` lists it; its instance may be left out where only one has it. Nobody waits for this reader: what
    was overwritten before it was read is told as lost. Of `open_orders` it prints what may be open at the venue, also after the gateway
    has died.
    """
    with _until_interrupted():
        from tools import decode

        decode.show(ring, follow=follow, last=last, start=decode.position_of(start), seconds=seconds, schema=schema, as_json=as_json)


@contextlib.contextmanager
def _until_interrupted() -> Iterator[None]:
    """Ctrl-C, and a reader of our output that has gone, are how a view ends."""
    try:
        yield
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Nobody reads it, and the interpreter would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@main.command()
@click.option("--instance", metavar="NAME", help="Only what belongs to this instance (default: everything on this box).")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@explained
def clean(instance: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove the shared memory that dead instances left behind. Where a process still lives, nothing of its instance is touched."""
    from tools.clean import clean as remove

    cleaned = remove(instance, dry_run=dry_run)
    if as_json:
        print_json(cleaned.to_dict())
    else:
        lines = [f"{'would remove' if dry_run else 'removed'} {name}" for name in cleaned.removed]
        lines += [f"kept {kept.name}: {kept.reason}" for kept in cleaned.kept]
        click.echo("\n".join(lines) or f"{instance or 'this box'}: nothing was left behind")
    if instance and cleaned.kept:
        sys.exit(EXIT_FAILED if any(kept.alive for kept in cleaned.kept) else EXIT_NO)


@main.group()
def capture() -> None:
    """Packet captures (pcap, pcapng) of a feed: look into one, send one again, record one. `tickpath run --feed` trades on one."""


@capture.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--messages", metavar="N", type=click.IntRange(min=1), help="Print the first N messages instead, decoded, one a line.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@explained
def show_capture(file: Path, messages: int | None, as_json: bool) -> None:
    """What is in a capture: destinations, MoldUDP64 sessions, gaps, which line was first, and what was skipped.

    Exits with 1 where the file is torn or holds no UDP datagram.
    """
    from tools import capture as captures

    if messages is not None:
        if as_json:
            raise ValueError("--messages and --json: expected one of them")
        with _until_interrupted():
            for text in captures.messages(file, messages):
                click.echo(text)
        return
    found = captures.survey(file)
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo("\n".join(captures.lines_of(found)))
    sys.exit(EXIT_NO if found.capture.torn or not found.capture.datagrams else 0)


@capture.command("send")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--to", required=True, metavar="HOST:PORT", help="Where line A goes: a multicast group, or one receiver.")
@click.option("--to-b", default="", metavar="HOST:PORT", help="Where line B goes; without it line B is not sent.")
@click.option("--line-a", default="", metavar="HOST:PORT", help="Line A's address in the capture (default: the first with MoldUDP64).")
@click.option("--line-b", default="", metavar="HOST:PORT", help="Line B's address in the capture (default: the same session's next).")
@click.option(
    "--speed", type=click.FloatRange(min=0), default=1.0, show_default=True, help="1 as recorded, 10 ten times faster, 0 flat out."
)
@click.option("--interface", default="127.0.0.1", show_default=True, help="Multicast leaves by this one: its name or address.")
@click.option("--ttl", type=click.IntRange(0, 255), default=1, show_default=True, help="Routers that multicast may pass, plus one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@explained
def send_capture(file: Path, to: str, to_b: str, line_a: str, line_b: str, speed: float, interface: str, ttl: int, as_json: bool) -> None:
    """Send the UDP datagrams of a capture again, with their own timing, scaled, or flat out. Ctrl-C ends it."""
    from tools import capture_send as sender

    sent = sender.Sent()
    routed = sender.routes(file, to, to_b, line_a, line_b)
    notes = list(sender.send(file, routed, speed=speed, interface=interface, ttl=ttl, sent=sent))
    if as_json:
        print_json(sent.to_dict() | {"notes": notes})
    else:
        click.echo("\n".join([str(sent), *notes]))


@capture.command("record")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--address", required=True, metavar="HOST:PORT", help="Line A: a multicast group to join, or an address of this box.")
@click.option("--address-b", default="", metavar="HOST:PORT", help="Line B.")
@click.option("--interface", default="127.0.0.1", show_default=True, help="Line A is joined there: an interface's name or address.")
@click.option("--interface-b", default="", help="Line B is joined there (default: where line A is).")
@click.option("--seconds", type=click.FloatRange(min=0), default=0.0, help="Record this long (default: until Ctrl-C).")
@click.option("--packets", type=click.IntRange(min=0), default=0, help="Record so many packets.")
@click.option("--receive-buffer", metavar="BYTES", type=click.IntRange(4096, 1 << 30), default=64 << 20, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@explained
def record_capture(
    file: Path, address: str, address_b: str, interface: str, interface_b: str, seconds: float, packets: int, receive_buffer: int,
    overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Record one or two feed lines into FILE, a pcap with the kernel's nanosecond stamps, until Ctrl-C, --seconds or --packets.

    Exits with 1 where datagrams were lost because the recorder could not follow.
    """
    from tools.capture_record import Recorder

    lines = [(address, interface)] + [(address_b, interface_b or interface)] * bool(address_b)
    with Recorder(file, lines, receive_buffer_bytes=receive_buffer, overwrite=overwrite) as recorder:
        if not as_json:
            click.echo(f"recording {' and '.join(where for where, _ in lines)} to {file}; Ctrl-C ends it", err=True)
        recorded = recorder.record(seconds=seconds, packets=packets)
    if as_json:
        print_json(recorded.to_dict())
    else:
        click.echo(str(recorded))
    sys.exit(EXIT_NO if recorded.lost else 0)


@main.command()
@click.option("--cpus", metavar="LIST", help="Measure these, as in 2-5,8. Default: isolated CPUs, or all but CPU 0's core.")
@click.option("--seconds", type=click.FloatRange(min=0.01, max=86_400), default=10.0, show_default=True, help="How long.")
@click.option("--threshold-ns", default="auto", show_default=True, help="Gaps longer than this; auto: 8 readings of the clock.")
@click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON; '-' is standard output.")
@explained
def jitter(cpus: str | None, seconds: float, threshold_ns: str, json_path: str | None) -> None:
    """Measure how often and how long each CPU is taken away from a process that spins on it, and by whom."""
    from engine.runtime.cpus import parse_list
    from tools import cpus as numbers
    from tools import jitter as meter
    from tools import jitter_show, show
    from tools.run import write_json

    wanted = numbers.worth_measuring() if cpus is None else parse_list(cpus)
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
@click.argument("file", metavar="FILE")
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path), help="A .parquet or .csv file; without it CSV goes to standard output."
)
@click.option("--symbols", default="", metavar="A,B", help="Rows of these only.")
@click.option("--bbo", is_flag=True, help="Changes of the best bid and offer: the table written when no other is asked for.")
@click.option("--trades", is_flag=True, help="Executions, trades beside the book, crosses, broken trades.")
@click.option("--depth", metavar="N", type=int, help="Changes of the best N prices of either side (1 to 50).")
@click.option("--orders", is_flag=True, help="Every order that comes, changes or goes.")
@click.option(
    "--lobster", metavar="DIR", type=click.Path(path_type=Path), help="LOBSTER's message and orderbook files of --symbols, --depth 10."
)
@click.option(
    "--date", metavar="DAY", help="YYYY-MM-DD, or 'name': it is in FILE's name. Then ts_ns counts from the epoch, else from midnight."
)
@click.option("--tz", metavar="ZONE", default="America/New_York", show_default=True, help="Of the market, with --date.")
@click.option("--seq", is_flag=True, help="Add the column seq: which message of FILE, from 1, a row is due to.")
@click.option(
    "--orders-max", metavar="N", type=click.IntRange(1, 1 << 27), help="Room for so many live orders (default: by FILE's size, 8,388,608)."
)
@click.option("--json", "json_path", metavar="FILE", help="Write what there was to see as JSON; '-' is standard output.")
@explained
def book(file: str, symbols: str, json_path: str | None, **options: Any) -> None:
    """Write the best bid and offer changes of an ITCH day: ts_ns, symbol, bid_px, bid_sz, ask_px, ask_sz.

    FILE is NASDAQ ITCH 5.0 with 2-byte lengths, plain or gzip; '-' is standard input. Prices are exact decimals with 4 places, an empty
    side has neither price nor size. Several tables go to FILE.bbo.parquet, FILE.trades.parquet and so on. Exits with 1 where FILE ends
    inside a message (what was whole is written) or a symbol is not in it.
    """
    from tools.book_show import run_book

    asked = list(dict.fromkeys(symbol.strip() for symbol in symbols.split(",") if symbol.strip()))
    sys.exit(run_book({"file": file, "symbols": asked, **options}, json_path))


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


main.add_command(risk)
main.add_command(kill)
main.add_command(arm)

if __name__ == "__main__":
    main()
