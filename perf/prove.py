"""What `tuning/tune prove` measures the ring with, and how it puts three measurements side by side.

    python -m perf.prove ring --cpus 1,2 --seconds 5 --json FILE     round trips between two pinned processes
    python -m perf.prove table FOLDER [--json]                       before, applied, reverted

FOLDER holds PHASE.jitter (tickpath jitter --json), PHASE.ring, and what tune said: audit.before, apply, revert, audit.after. The
exit code of `table` is that of prove: 0 all is back as it was, 1 something is not, 3 something failed.
"""

import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import orjson

import engine  # noqa: F401  (names the kernel cache before numba is imported)
from engine.runtime.clock import calibrate
from perf.bench_tuned_ring import BETWEEN_S, KINDS, Run, end_in_order, figures, run_pair
from tools.machine import describe, one_line

PHASES = ("before", "applied", "reverted")
ROUNDS = 10_000
# Up to so many CPUs have lines of their own; of more, each line is that of the worst.
CPUS_SHOWN = 2
# From this share of a CPU on, what other threads took hides what a setting does.
BUSY_SHARE = 0.01
JITTER_KEYS = (
    ("gaps_per_s", "gaps a second"), ("p99_ns", "gap p99 ns"), ("p999_ns", "gap p99.9 ns"), ("max_ns", "gap max ns"),
    ("lost_share", "share of time lost"),
)  # fmt: skip
RING_KEYS = (
    ("p50_ns", "round trip p50 ns"), ("p99_ns", "round trip p99 ns"), ("p999_ns", "round trip p99.9 ns"), ("max_ns", "round trip max ns"),
)  # fmt: skip
BY_CHANCE = "one measurement each: where a setting does nothing, a third of the lines say better and a third worse all the same"


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """A file of the folder, or None where it is missing or cut short."""
    try:
        return orjson.loads((folder / name).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None


def compare(values: list[float | None]) -> str:
    """What three figures, less being better, say about the one in the middle."""
    before, applied, reverted = values
    if before is None or applied is None or reverted is None:
        return "not measured"
    if before == applied == reverted:
        return "no difference"
    if applied < min(before, reverted):
        return "better than both"
    return "worse than both" if applied > max(before, reverted) else "between the two"


def rows(folder: Path) -> list[dict[str, Any]]:
    """Each figure in the three phases."""
    meters = [read(folder, f"{phase}.jitter") for phase in PHASES]
    rings = [read(folder, f"{phase}.ring") for phase in PHASES]
    numbers = sorted({one["cpu"] for meter in meters if meter for one in meter["cpus"]})
    together = len(numbers) > CPUS_SHOWN
    found = []
    for cpus, label in [(numbers, "worst of CPUs")] if together else [([cpu], f"CPU {cpu}") for cpu in numbers]:
        for key, name in JITTER_KEYS:
            worst = [max((one[key] for one in meter["cpus"] if one["cpu"] in cpus), default=None) if meter else None for meter in meters]
            found.append(_row(f"{label} {name}", worst))
    if any(rings):
        found += [_row(name, [ring[key] if ring else None for ring in rings]) for key, name in RING_KEYS]
    return found


def _row(name: str, values: list[float | None]) -> dict[str, Any]:
    before, applied, reverted = values
    around = fmean((before, reverted)) if before is not None and reverted is not None else None
    ratio = round(applied / around, 4) if applied is not None and around else None
    return {"figure": name, **dict(zip(PHASES, values, strict=True)), "ratio": ratio, "says": compare(values)}


def knobs(folder: Path) -> list[dict[str, Any]]:
    """Each knob's state before, after apply and after revert, whether apply changed it, and whether it is back."""
    before, applied, after = (_by_name(read(folder, name)) for name in ("audit.before", "apply", "audit.after"))
    reverted = _by_name(read(folder, "revert"))
    found = []
    for name, knob in applied.items():
        changed = len(knob["changes"])
        was, now = before.get(name, {}), after.get(name, {})
        back = now.get("state") == was.get("state") and reverted.get(name, {"state": "ok"})["state"] in ("ok", "no-op")
        found.append({
            "name": name,
            "before": was.get("state"), "applied": knob["state"], "reverted": now.get("state"),
            "was": was.get("got"), "got": knob["got"], "is": now.get("got"),
            "changed": changed, "back": back, "lasts": knob["lasts"],
            "reason": knob["reason"], "revert": reverted.get(name, {}).get("reason", ""),
        })  # fmt: skip
    return found


def _by_name(report: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    return {knob["name"]: knob for knob in report["knobs"]} if report else {}


def not_shown(folder: Path, states: list[dict[str, Any]]) -> list[str]:
    """Sentences about what this proof cannot say here."""
    meter = read(folder, "before.jitter")
    said = []
    boot = [knob["name"] for knob in states if knob["lasts"] == "boot" and knob["applied"] in ("drift", "pending-reboot")]
    if boot:
        said.append(f"{', '.join(boot)}: act after a reboot only; run `tickpath jitter` before and after that")
    for knob in states:
        if knob["applied"] in ("unsupported", "refused"):
            said.append(f"{knob['name']}: {knob['applied']}: {knob['reason']}")
    kept = [knob["name"] for knob in states if knob["applied"] == "no-op"]
    if kept:
        said.append(f"left alone by the profile, or nothing to set: {', '.join(kept)}")
    if meter is None:
        said.append("the interruption meter did not run")
    else:
        said += meter["unknown"]
        if meter["machine"]["hypervisor"]:
            said.append("this machine is virtual: its host may take a CPU at any moment, and no setting in here changes that")
    busy = max((one["waited_for_threads_ns"] or 0) / 1e9 / one["watched_s"] for one in meter["cpus"]) if meter else 0.0
    if busy > BUSY_SHARE:
        said.append(f"other threads had up to {busy:.0%} of a measured CPU before apply: what they do hides most of this; stop them first")
    if read(folder, "before.ring") is None:
        said.append("the ring's round trip was not measured: it needs two CPUs")
    return [*said, BY_CHANCE]


def result_of(folder: Path) -> dict[str, Any]:
    """All there is to say, with the exit code of prove."""
    states, apply, revert = knobs(folder), read(folder, "apply"), read(folder, "revert")
    meter = read(folder, "before.jitter")
    failed = apply is None or revert is None or 3 in (apply["exit"], revert["exit"])
    missing = [f"{phase}.jitter" for phase in PHASES if read(folder, f"{phase}.jitter") is None]
    not_back = [knob["name"] for knob in states if not knob["back"]]
    return {
        "verb": "prove",
        "exit": 3 if failed or missing else 1 if not_back else 0,
        "machine": meter["machine"] if meter else describe(),
        "figures": rows(folder),
        "knobs": states,
        "not_back": not_back,
        "not_shown": not_shown(folder, states),
        "phases": {phase: {kind: read(folder, f"{phase}.{kind}") for kind in ("jitter", "ring")} for phase in PHASES},
    }


def text(result: dict[str, Any]) -> str:
    """The result for a person."""
    lines = [one_line(result["machine"]), "", f"{'':34}{'before':>12}{'applied':>12}{'reverted':>12}{'ratio':>9}  applied is"]
    lines += [_figure(row) for row in result["figures"]]
    changed = [knob for knob in result["knobs"] if knob["changed"]]
    already = [knob["name"] for knob in result["knobs"] if knob["applied"] == "ok" and not knob["changed"]]
    lines += ["", f"{'changed by apply':22}{'before':>12}  {'applied':<14}{'reverted':<12}"]
    for knob in changed:
        now = f"{knob['reverted']}" if knob["back"] else f"NOT BACK: {knob['revert'] or knob['is']}"
        lines.append(f"{knob['name']:22}{knob['before'] or 'unknown':>12}  {knob['applied']:<14}{now}  {_values(knob)}")
    lines += [f"as wanted before: {', '.join(already)}"] if already else []
    lines += ["", "not shown here:", *(f"  {sentence}" for sentence in result["not_shown"])]
    back = "all is back as it was" if not result["not_back"] else f"NOT as it was: {', '.join(result['not_back'])}"
    return "\n".join([*lines, "", back])


def _figure(row: dict[str, Any]) -> str:
    share = row["figure"].endswith("lost")
    cells = "".join(f"{_number(row[phase], share=share):>12}" for phase in PHASES)
    ratio = "-" if row["ratio"] is None else f"{row['ratio']:.3f}"
    return f"{row['figure']:34}{cells}{ratio:>9}  {row['says']}"


def _number(value: float | None, *, share: bool) -> str:
    if value is None:
        return "-"
    return f"{value:.4%}" if share else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _values(knob: dict[str, Any]) -> str:
    return f"{knob['was'] or '(empty)'} -> {knob['got'] or '(empty)'} -> {knob['is'] or '(empty)'}"[:90]


@click.group(help=__doc__.split("\n\n")[0] if __doc__ else None)
def main() -> None:
    pass


@main.command()
@click.option("--cpus", required=True, help="The two CPUs, as in 2,3.")
@click.option("--seconds", default=5.0, show_default=True, type=click.FloatRange(min=0.01))
@click.option("--json", "json_path", required=True, help="Write the result here.")
def ring(cpus: str, seconds: float, json_path: str) -> None:
    """Round trips between two processes, each pinned, in short runs."""
    end_in_order()
    first, _, second = cpus.partition(",")
    if not (first.isdigit() and second.isdigit() and first != second):
        raise click.UsageError(f"--cpus={cpus}: expected two different CPUs, as in 2,3")
    hz = calibrate().hz
    runs: list[Run] = []
    end = time.monotonic() + seconds
    while not runs or time.monotonic() < end:
        runs.append(run_pair(KINDS["pinned"], (int(first), int(second)), ROUNDS, hz))
        time.sleep(BETWEEN_S)
    Path(json_path).write_bytes(orjson.dumps({**figures(runs, hz), "cpus": [int(first), int(second)]}))


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True)
def table(folder: Path, as_json: bool) -> None:
    """The three phases side by side."""
    result = result_of(folder)
    click.echo(orjson.dumps(result, option=orjson.OPT_INDENT_2) if as_json else text(result))
    sys.exit(result["exit"])


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        print(f"prove: {error}", file=sys.stderr)
        sys.exit(3)
