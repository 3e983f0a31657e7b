"""`tickpath doctor`: is this box fit for the engine, and what is worth changing first.

Its own checks (tools/fitness.py), and every knob of `tuning/tune audit`. Reads only. Exit codes: 0 fit, 1 not fit (a problem, or
something essential that cannot be read), 2 wrong usage, 3 tune failed.
"""

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import engine
from engine.runtime.config import load
from tools.checkup import ADVICE, OK, PROBLEM, UNKNOWN, Check, Machine
from tools.cpus import ROOT
from tools.fitness import checks, need_of

TUNE = engine.ROOT / "tuning/tune"
TUNE_TIMEOUT_S = 120
# These say the same, of the CPUs that the engine gets.
OWN = {"clocksource", "governor"}
ORDER = (PROBLEM, ADVICE, UNKNOWN, OK)
EXIT_FIT, EXIT_UNFIT = 0, 1

# What a knob is worth where it is off, out of 100. Interruptions of milliseconds first, then of microseconds, then memory, then
# what matters to few; anything dangerous last.
WORTH = {
    "isolcpus": 96, "cpuset-v2": 96, "cpuset-v1": 94, "harmful-boot": 93, "irqs": 92, "nohz-full": 87, "dma-latency": 86,
    "irqbalance": 84, "kthreads": 83, "rcu-nocbs": 82, "workqueues": 79, "epp": 76, "min-perf": 74, "irq-default": 72, "irqaffinity": 71,
    "nic-irqs": 69, "coalesce": 68, "boost": 66, "energy-bias": 64, "resume-latency": 63, "thp": 58, "khugepaged-defrag": 56, "ksm": 55,
    "numa-balancing": 54, "compaction": 53, "compact-unevictable": 52, "swappiness": 48, "zone-reclaim": 47, "hugetlb-mount": 44,
    "shm-huge": 43, "watchdog-cpus": 42, "nmi-watchdog": 41, "rcu-boot": 39, "skew-tick": 38, "rcu-normal": 37, "timer-migration": 36,
    "stat-interval": 35, "timestamping": 34, "rss": 33, "flows": 33, "xps": 32, "rmem-max": 31, "wmem-max": 29, "boot-dropin": 28,
    "busy-read": 27, "busy-poll": 26, "smt": 25, "hugepages": 24, "queues": 19, "rings": 18, "dead-sysctls": 15, "tcp-low-latency": 14,
    "fair-server": 12, "rt-runtime": 11, "tsc-reliable": 10, "ignore-ce": 9,
}  # fmt: skip


class TuneError(RuntimeError):
    """tune did not give an answer that can be read."""


def examine(config_path: Path, profile: Path | None, machine: Machine) -> dict[str, Any]:
    """Every check, the most worthwhile first. ConfigError, ValueError: an unusable config or profile; TuneError."""
    config = load(config_path)
    interfaces = interfaces_of(profile)
    audit = tune_audit(profile, machine.root)
    found = checks(machine, need_of(config, machine, interfaces))
    left_alone: list[str] = []
    if audit is None:
        cure = "run it from a checkout: git clone, then tuning/tune audit"
        found.append(Check("tune", UNKNOWN, f"{TUNE} is not there, so its settings are unknown", "", cure, 99))
    else:
        options = f" --profile {profile}" if profile else ""
        answers = (of_knob(knob, options, audit["boot_how"]) for knob in audit["knobs"] if knob["name"] not in OWN)
        found += [check for check in answers if check]
        left_alone = [knob["name"] for knob in audit["knobs"] if knob["state"] == "no-op"]
    found.sort(key=lambda check: (ORDER.index(check.state), -check.worth, check.name))
    fit = not any(check.state == PROBLEM or (check.essential and check.state == UNKNOWN) for check in found)
    return {
        "fit": fit,
        "exit": EXIT_FIT if fit else EXIT_UNFIT,
        "config": str(config_path),
        "counts": {state: sum(check.state == state for check in found) for state in ORDER},
        "checks": [asdict(check) for check in found],
        "left_alone": left_alone,
        "warnings": audit["warnings"] if audit else [],
    }


def interfaces_of(profile: Path | None) -> list[str]:
    """The interfaces that a profile names. What else is in it is for tune to judge."""
    for line in profile.read_text(errors="replace").splitlines() if profile else []:
        key, equals, value = line.partition("#")[0].partition("=")
        if equals and key.strip() == "interface" and value.strip() != "none":
            return [name.strip() for name in value.split(",")]
    return []


def tune_audit(profile: Path | None, root: Path) -> dict[str, Any] | None:
    """What `tune audit --json` says; None where there is no tune. ValueError for a profile that it refuses, TuneError."""
    if not TUNE.exists():
        return None
    command = [str(TUNE), "audit", "--json"]
    command += ["--root", str(root)] if root != ROOT else []
    command += ["--profile", str(profile)] if profile else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TUNE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TuneError(f"tune audit did not run: {error}") from None
    said = done.stderr.strip().removeprefix("tune: ")
    if done.returncode == 2 and not done.stdout:
        raise ValueError(f"tune audit: {said}")
    try:
        report: dict[str, Any] = json.loads(done.stdout)
        if not isinstance(report["knobs"], list) or report["exit"] != done.returncode:
            raise KeyError("knobs")
    except (ValueError, KeyError, TypeError):
        raise TuneError(f"tune audit ended with {done.returncode} and no report: {said or done.stdout[:200]}") from None
    return report


def of_knob(knob: dict[str, Any], options: str, boot_how: str) -> Check | None:
    """A knob's state as a check; None for what the profile leaves alone. A setting that is missing here is unknown, never ok."""
    name, because, got = knob["name"], knob["reason"], knob["got"] or "(empty)"
    answers = {
        "ok": (OK, got, ""),
        "drift": (ADVICE, f"{got} -> {knob['want']}", f"sudo tuning/tune apply --only {name}{options}"),
        "pending-reboot": (ADVICE, because, "sudo update-grub && sudo reboot"),
        "refused": (ADVICE, f"{got}: {because}", f"tuning/tune plan --only {name}{options}"),
        "unsupported": (UNKNOWN, because, ""),
    }
    if knob["state"] not in answers:
        return None
    state, found, cure = answers[knob["state"]]
    if knob["state"] == "drift" and knob["lasts"] == "boot":
        arguments = " ".join(f"{change['target']}={change['want']}" for change in knob["changes"])
        cure = f"{arguments} on the kernel line: {boot_how}"
    elif knob["state"] == "refused" and name == "harmful-boot":
        state, found, cure = PROBLEM, got, because
    elif knob["state"] == "refused" and ("cannot be read" in because or "only root" in because):
        state, found, cure = UNKNOWN, because, "run it as root: sudo tickpath doctor"
    return Check(name, state, found, knob["why"], cure, WORTH.get(name, 20), danger=knob["danger"])
