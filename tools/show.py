"""What a person sees of a run: the live line, and the report."""

import os
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine.layout import PHASE_STARTING, PHASE_TRADING, STATE_COMPILING, STATE_LOOPING, STATE_NEW
from engine.risk.hot.reasons import PASSED
from engine.risk.sentences import SENTENCES
from engine.runtime.instance import Instance
from tools.machine import one_line

STATE_WORDS = {STATE_NEW: "starting", STATE_COMPILING: "compiling kernels", STATE_LOOPING: "ready"}


def live_line(instance: Instance, names: list[str], traded_s: float, seconds: float) -> Text:
    """One line of what is going on now."""
    phase = int(instance.control.records["phase"][0])
    if phase == PHASE_STARTING:
        states = [int(line["state"]) for line in instance.processes.records[: len(names)]]
        return Text("  ".join(f"{name}: {STATE_WORDS.get(state, 'ready')}" for name, state in zip(names, states, strict=True)), style="dim")
    feed, gateway = instance.feed_stats.records[0], instance.gateway_stats.records[0]
    clock = f"{traded_s:5.1f} s" + (f" of {seconds:g}" if seconds else "")
    settling = "" if phase == PHASE_TRADING else "  settling"
    return Text(
        f"{clock}  messages {int(feed['messages']):,}  quotes {int(feed['quotes']):,}  lost {int(feed['lost'])}  "
        f"orders {int(gateway['sent']):,}  fills {int(gateway['executed']):,}{settling}"
    )


PASSED_SENTENCE = SENTENCES[PASSED]

# Where the output is not a terminal there is no width to ask for, and a log should not wrap.
LOG_WIDTH = 150
# Measured only where the config asks for it, or where anything waited.
HOPS_ASKED_FOR = {"kernel_to_packet", "queue"}
# Below this the hops are told by name only.
WIDE_ENOUGH = 130


def console_for(*, stderr: bool = False) -> Console:
    """A console on standard output, or on standard error where that carries the JSON."""
    console = Console(stderr=stderr)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(stderr=stderr, width=LOG_WIDTH)


def live(console: Console) -> Live:
    """A line that is redrawn on a terminal and absent elsewhere; redrawn only when asked, so that no thread is needed."""
    return Live(console=console, auto_refresh=False, transient=True)


def report(result: dict[str, Any], width: int) -> Group:
    """The whole report for a terminal of `width` columns."""
    parts: list[Any] = [Text(_headline(result), style="bold"), Text(one_line(result["machine"]), style="dim")]
    parts += [Text(f"note: {note}", style="yellow") for note in result["notes"]]
    parts += [Text(f"FAILED: {failure}", style="bold red") for failure in result["failures"]]
    parts += [
        "",
        _counts(result),
        "",
        lines_of(result["feed"]),
        *troubles_of(result["feed"]),
        "",
        _hops(result["hops"], wide=width >= WIDE_ENOUGH),
        "",
        _processes(result["processes"]),
    ]
    parts += [Text(f"ALERT {alert['at']}: {alert['text']}", style="bold red") for alert in result["alerts"]]
    if killed := result["kill"]:
        parts.append(Text(_kill(killed), style="yellow"))
    if refused := _refused(result["risk"]):
        parts += ["", *refused]
    if result["positions"]:
        parts += ["", _positions(result)]
    return Group(*parts)


def _kill(kill: dict[str, Any]) -> str:
    """How long the gateway took over the cancels of the last kill."""
    took = kill["kill_to_last_cancel_us"]
    return f"the last kill: {kill['cancels']:,} cancels" + ("" if took is None else f", the last written {took:,.1f} us after the word")


def _headline(result: dict[str, Any]) -> str:
    first = result["first_order_ms"]
    ordered = "no order was sent" if first is None else f"first order {first / 1e3:.2f} s after the command"
    compiled = f"{result['kernels_compiled']} kernels compiled"
    paper = "PAPER: " if result["paper"] else ""
    return f"{paper}{result['instance']}: traded {result['seconds']:.1f} s ({result['ended']}), {ordered}, {compiled}"


def _counts(result: dict[str, Any]) -> Table:
    table = _table("market data", "", "orders", "", "outcome", "")
    orders, lost = result["orders"], result["lost"]
    lost_by = ", ".join(f"{name} {count:,}" for name, count in result["lost_by"].items())
    rows = (
        ("messages", result["messages"], "sent", orders["sent"], "fills", result["fills"]),
        ("quotes", result["quotes"], "accepted", orders["accepted"], "P&L", f"{result['pnl']:,.2f}"),
        ("trades", result["trades"], "replaced", orders["replaced"], "lost", f"{lost:,}" + (f" ({lost_by})" if lost_by else "")),
        ("gaps", result["gaps"], "cancelled", orders["cancelled"], "", ""),
        ("malformed", result["malformed"], "rejected by risk", orders["rejected_by_risk"], "", ""),
        ("", "", "rejected by exchange", orders["rejected_by_exchange"], "", ""),
    )
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else cell for cell in row))
    return table


def lines_of(feed: dict[str, Any]) -> Table:
    table = _table("line", "packets", "messages", "first", "duplicates", "lost", "dropped by the socket", "requests", "failures")
    for line in feed["lines"]:
        counts = (line[name] for name in ("packets", "messages", "first", "duplicates", "lost", "socket_drops", "requests", "failures"))
        table.add_row(line["line"], *(f"{count:,}" for count in counts))
    return table


def troubles_of(feed: dict[str, Any]) -> list[Any]:
    """What was missing and how it came back, in words; nothing where nothing was."""
    said, invalid = [], feed["invalid_ms"]
    counted = feed["recovery"]
    if counted["gaps"]:
        said.append(
            f"gaps {counted['gaps']:,}: {counted['recovered']:,} messages from rewind servers ({counted['requests']:,} requests), "
            f"{counted['snapshots']:,} snapshots, {counted['lost']:,} messages passed over; books gapped for {invalid['gapped']:,.1f} ms"
        )
    if counted["suspects"]:
        said.append(f"suspect books {counted['suspects']:,}, made anew {counted['refreshes']:,} times")
    if invalid["stale"]:
        said.append(f"books stale for {invalid['stale']:,.1f} ms")
    said += [f"not valid now, {reason}: {', '.join(symbols)}" for reason, symbols in feed["invalid_now"].items()]
    return [Text(sentence, style="yellow") for sentence in said]


def _refused(risk: dict[str, Any]) -> list[Any]:
    """What the gate refused, by its sentence, and what people decided while it ran."""
    lines = [
        f"{made['by']}, {made['at']}: {made['what']}: {made['before']} -> {made['value']}: {made['reason']}" for made in risk["decisions"]
    ]
    parts: list[Any] = [Text(line, style="yellow") for line in lines]
    refused = {sentence: count for sentence, count in risk.get("verdicts", {}).items() if sentence != PASSED_SENTENCE}
    if not refused:
        return parts
    table = _table("refused", "because")
    for sentence, count in refused.items():
        table.add_row(f"{count:,}", sentence)
    return [*parts, table]


def _hops(hops: list[dict[str, Any]], *, wide: bool) -> Table:
    explained = ("what",) if wide else ()
    table = _table("hop", *explained, "count", "p50 ns", "p99 ns", "p99.9 ns", "max ns")
    for hop in hops:
        if hop["name"] in HOPS_ASKED_FOR and hop["count"] == 0:
            continue
        figures = (f"{hop[key]:,}" if hop["count"] else "-" for key in ("p50_ns", "p99_ns", "p999_ns", "max_ns"))
        table.add_row(hop["name"], *([hop["what"]] if wide else []), f"{hop['count']:,}", *figures)
    return table


def _processes(processes: list[dict[str, Any]]) -> Table:
    table = _table("process", "stages", "pid", "CPU", "idle", "runs as", "busy", "faults", "kernels compiled", "ending")
    for entry in processes:
        shared = f" (shared with {', '.join(entry['shares_cpu_with'])})" if entry["shares_cpu_with"] else ""
        table.add_row(
            entry["name"], "+".join(entry["stages"]), str(entry["pid"]), f"{entry['cpu']}{shared}", entry["idle"],
            _runs_as(entry["settings"]), f"{entry['busy']:.1%}", f"{entry['loop']['minor_faults'] + entry['loop']['major_faults']:,}",
            str(entry["kernels_compiled"]), entry["ending"],
        )  # fmt: skip
    return table


def _runs_as(settings: dict[str, Any]) -> str:
    """What a process has of the kernel beyond the ordinary, as read back."""
    said = [f"FIFO {settings['fifo']}" if settings["fifo"] else "", f"nice {settings['nice']}" if settings["nice"] else ""]
    said += [f"{settings['locked_kib'] >> 10} MiB locked" if settings["locked"] else "", "latency set" if settings["latency_set"] else ""]
    said += [f"node {settings['numa_node']}" if settings["numa_node"] is not None else ""]
    return ", ".join(part for part in said if part) or "ordinary"


def _positions(result: dict[str, Any]) -> Table:
    table = _table("symbol", "position", "bought", "sold", "fills", "mark", "P&L", "exchange says")
    for entry in result["positions"]:
        theirs = "-" if "agrees" not in entry else f"{entry['exchange_position']:,} " + ("agrees" if entry["agrees"] else "DIFFERS")
        table.add_row(
            entry["symbol"], f"{entry['position']:,}", f"{entry['bought']:,}", f"{entry['sold']:,}", f"{entry['fills']:,}",
            "-" if entry["mark"] is None else f"{entry['mark']:,.2f}", "-" if entry["pnl"] is None else f"{entry['pnl']:,.2f}", theirs,
        )  # fmt: skip
    return table


NUMBERS = {
    "",
    "count",
    "packets",
    "messages",
    "first",
    "duplicates",
    "lost",
    "requests",
    "failures",
    "dropped by the socket",
    "position",
    "bought",
    "sold",
    "fills",
    "mark",
    "P&L",
    "busy",
    "pid",
    "faults",
}


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for place, column in enumerate(columns):
        numeric = column.endswith("ns") or column in NUMBERS
        table.add_column(column, justify="right" if numeric and place else "left", no_wrap=column not in {"what", "CPU"})
    return table
