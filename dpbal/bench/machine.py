"""Where a benchmark ran, and what else that machine was doing."""

from __future__ import annotations

import os
import platform
import resource
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("dpbal", "numpy", "numba")

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Load:
    """How busy the machine was.

    Attributes:
        processes: Mean number of processes that wanted a core over the last 1, 5 and 15 minutes.
        cores: Cores that this process may use.
    """

    processes: tuple[float, float, float]
    cores: int

    def __str__(self) -> str:
        means = " ".join(f"{mean:.2f}" for mean in self.processes)
        return f"load {means} (1, 5, 15 min) on {self.cores} cores"


def load() -> Load:
    """How busy the machine is now."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS has no affinity
        cores = os.cpu_count() or 1
    return Load(os.getloadavg(), cores)


def describe(before: Load, after: Load) -> dict[str, Any]:
    """The machine as plain values, with its load before and after a benchmark."""
    return {
        "processor": processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "load_before": asdict(before),
        "load_after": asdict(after),
    }


def peak_rss_bytes() -> int:
    """The most memory that this process has had resident since it started."""
    if _STATUS.exists():
        # on Linux getrusage goes on counting from what the parent had before exec; this does not
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def processor() -> str:
    """What the machine's processor calls itself."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
