"""What machine a figure was measured on, in one line of JSON."""

import os
import platform
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """CPU, cores, cache, kernel, isolation and clock source. A value the machine does not tell is None."""
    return {
        "cpu": _cpu_model(),
        "cpus": sorted(os.sched_getaffinity(0)),
        "l3": _read("/sys/devices/system/cpu/cpu0/cache/index3/size"),
        "kernel": platform.release(),
        "hypervisor": "hypervisor" in _cpu_flags(),
        "isolated": _read("/sys/devices/system/cpu/isolated") or None,
        "nohz_full": _read("/sys/devices/system/cpu/nohz_full") or None,
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clocksource": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "python": platform.python_version(),
    }


def one_line(machine: dict[str, Any]) -> str:
    isolation = f"isolated CPUs {machine['isolated']}" if machine["isolated"] else "no isolated CPUs"
    virtual = ", virtual" if machine["hypervisor"] else ""
    return f"{machine['cpu']}, {len(machine['cpus'])} CPUs{virtual}, L3 {machine['l3']}, Linux {machine['kernel']}, {isolation}"


def _cpu_model() -> str:
    return _cpuinfo("model name") or platform.processor() or "unknown"


def _cpu_flags() -> list[str]:
    return (_cpuinfo("flags") or "").split()


def _cpuinfo(key: str) -> str | None:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
