"""What `tickpath jitter` tells a person."""

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tools.machine import one_line

NAMED = 4


def report(result: dict[str, Any]) -> Group:
    parts: list[Any] = [Text(one_line(result["machine"]), style="dim"), ""]
    if result["interrupted"]:
        parts.insert(1, Text("ended early by Ctrl-C", style="yellow"))
    parts += [_gaps(result["cpus"]), "", _took(result["cpus"]), "", _largest(result["cpus"])]
    parts += [Text(f"unknown: {sentence}", style="yellow") for sentence in result["unknown"]]
    return Group(*parts)


def _gaps(measured: list[dict[str, Any]]) -> Table:
    table = _table("CPU", "watched s", "threshold ns", "gaps", "a second", "p50 ns", "p99 ns", "p99.9 ns", "max ns", "time lost")
    for one in measured:
        table.add_row(
            str(one["cpu"]), f"{one['watched_s']:.2f}", f"{one['threshold_ns']:.0f}", f"{one['gaps']:,}", f"{one['gaps_per_s']:,.1f}",
            *(f"{one[key]:,}" for key in ("p50_ns", "p99_ns", "p999_ns", "max_ns")), f"{one['lost_share']:.4%}",
        )  # fmt: skip
    return table


def _took(measured: list[dict[str, Any]]) -> Table:
    table = _table("CPU", "who took it", "as far as the kernel counts", left=True)
    for one in measured:
        waited = one["waited_for_threads_ns"]
        threads = "unknown" if waited is None else f"{ms(waited)} of {ms(one['lost_ns'])} lost, preempted {one['preempted']} times"
        named = ", ".join(f"{thread['name']} {ms(thread['ran_ns'])}" for thread in (one["threads"] or [])[:NAMED])
        stolen = "unknown" if one["stolen_ns"] is None else f"{ms(one['stolen_ns'])} (counted in steps of 10 ms)"
        table.add_row(str(one["cpu"]), "other threads", threads + (f": {named}" if named else ""))
        table.add_row("", "interrupts", _counts(one["interrupts"]))
        table.add_row("", "softirqs", _counts(one["softirqs"]))
        table.add_row("", "the host", stolen)
        unseen = "unknown" if one["unseen_ns"] is None else ms(one["unseen_ns"])
        table.add_row("", "the rest", f"{unseen}: interrupts, softirqs, and what the kernel does not see (hypervisor, firmware)")
    return table


def _largest(measured: list[dict[str, Any]]) -> Table:
    table = _table("CPU", "largest gaps, and when", left=True)
    for one in measured:
        first = (f"{ms(gap['ns'])} at {gap['at_s']:.3f} s" for gap in one["largest"][:NAMED])
        table.add_row(str(one["cpu"]), ", ".join(first) or "none")
    return table


def ms(ns: int) -> str:
    """A duration in the unit that it is read in."""
    if ns < 1_000_000:
        return f"{ns / 1e3:.1f} us"
    return f"{ns / 1e6:.2f} ms"


def _counts(counts: dict[str, int] | None) -> str:
    if counts is None:
        return "unknown"
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:NAMED]]
    return ", ".join(shown + ["..."] * (len(counts) > NAMED)) or "none"


def _table(*columns: str, left: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place and not left else "left", no_wrap=not left)
    return table
