"""What a server's processes take, and what its requests still hold, as seen from outside."""

from __future__ import annotations

import os
import re
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from dpbal.core import LoadTable
from dpbal.sharedmem.segment import FOLDER
from dpbal.transports import Shm
from experiments.serve.servers import Server

MB = 1e6
KINDS = ("APIServer", "EngineCore", "Worker", "Coordinator")
"""What vLLM's processes call themselves; the one that was started is ``main``.

With one API server it is ``main`` that answers.
"""

SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})? (\S+)", re.MULTILINE)


class Usage(NamedTuple):
    """What one process has.

    Attributes:
        kind: One of ``KINDS``, ``main`` or ``other``.
        pid: Its number.
        rss_mb: Resident memory.
        own_mb: Memory that is no file's; what a fork shares is divided (``Pss_Anon``).
        fds: Open files and sockets.
        threads: Their number.
        cpu_s: Processor time since its start.
    """

    kind: str
    pid: int
    rss_mb: float
    own_mb: float
    fds: int
    threads: int
    cpu_s: float


def usages(server: Server) -> list[Usage]:
    """Of every process of a server."""
    found = []
    for process in server.place.processes():
        with suppress(psutil.Error, OSError):
            found.append(_usage(process, server.process.pid))
    return found


def _usage(process: psutil.Process, main: int) -> Usage:
    name = " ".join(process.cmdline())
    kind = next((kind for kind in KINDS if kind in name), "other")
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    pss = re.search(r"^Pss_Anon:\s+(\d+) kB", rollup, re.MULTILINE)
    cpu = process.cpu_times()
    return Usage(
        "main" if process.pid == main else kind,
        process.pid,
        process.memory_info().rss / MB,
        int(pss.group(1)) * 1024 / MB if pss else 0.0,
        process.num_fds(),
        process.num_threads(),
        cpu.user + cpu.system,
    )


def cpu_s(server: Server) -> dict[str, float]:
    """Processor seconds that the threads a server has now have taken, by kind of process.

    It is the scheduler's count, in nanoseconds: an idle server takes less than a clock tick of
    10 ms in a while.
    """
    total: dict[str, float] = {}
    for process in server.place.processes():
        with suppress(psutil.Error, OSError):
            name = " ".join(process.cmdline())
            kind = next((kind for kind in KINDS if kind in name), "other")
            kind = "main" if process.pid == server.process.pid else kind
            total[kind] = total.get(kind, 0.0) + _threads_s(process.pid)
    return total


def _threads_s(pid: int) -> float:
    ran_ns = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):  # it has ended
            ran_ns += int(file.read_text().split()[0])
    return ran_ns / 1e9


def machine_s() -> float:
    """Processor seconds that the whole machine has been busy, whoever used them."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - times.guest)


def shared_memory(server: Server) -> set[str]:
    """Names in shared memory that processes of a server have mapped."""
    found: set[str] = set()
    for process in server.place.processes():
        with suppress(OSError):
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            found.update(re.findall(rf"{FOLDER}/(\S+)", maps))
    return {name for name in found if (FOLDER / name).exists()}


def metrics(server: Server) -> dict[str, float]:
    """What ``/metrics`` says, added up over labels."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    total: dict[str, float] = {}
    for name, value in SAMPLE.findall(text):
        total[name] = total.get(name, 0.0) + float(value)
    return total


class Reports:
    """The load reports of a server with dpbal, which nobody notices to be read."""

    def __init__(self, server: Server) -> None:
        """Find those of a server, which must have ``transport=shm``."""
        pids = {process.pid for process in server.place.processes()}
        (segment,) = (
            path for path in FOLDER.glob("dpbal-loads-*") if int(path.name.split("-")[3]) in pids
        )
        self._table = LoadTable(server.spec.ranks, server.spec.api_servers)
        self._subscriber = Shm().subscriber(segment.name, self._table)

    def look(self) -> dict[str, int]:
        """Sums over all ranks, and the last numbers of all front ends that ranks have received."""
        self._subscriber.refresh()
        reports = self._table.reports
        fields = ("running", "waiting", "holding_tokens", "prefill_tokens", "kv_used_tokens")
        return {
            **{name: int(reports[name].sum()) for name in fields},
            "acknowledged": int(self._table.received_sequence.max(axis=0).sum()),
        }

    def close(self) -> None:
        """Look no more."""
        self._subscriber.close()


def holds(server: Server, reports: Reports | None) -> dict[str, float]:
    """What requests still hold, by all that say so; all zero when there are none."""
    said = metrics(server)
    held = {
        name: said[name]
        for name in said
        if name in ("vllm:num_requests_running", "vllm:num_requests_waiting")
        or name.startswith(("dpbal_in_flight", "dpbal_outstanding"))
    }
    if reports is not None:
        look = reports.look()
        held |= {k: look[k] for k in ("running", "waiting", "holding_tokens", "kv_used_tokens")}
    return held


def drained(server: Server, reports: Reports | None, within_s: float = 60.0) -> dict[str, float]:
    """Wait until nothing is held, and return what still is."""
    deadline_s = time.monotonic() + within_s
    while True:
        held = {name: value for name, value in holds(server, reports).items() if value}
        if not held or time.monotonic() > deadline_s:
            return held
        time.sleep(1.0)


def health(server: Server) -> int | None:
    """Status of ``/dpbal/health``; None where the server has none."""
    try:
        with urllib.request.urlopen(f"{server.url}/dpbal/health", timeout=10) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return None if error.code == 404 else error.code
    except OSError:
        return None


def load() -> dict[str, Any]:
    """How busy the machine is."""
    return {"load_1min": os.getloadavg()[0]}
