"""From the files of a run to a trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars
from polars import col

from dpbal.comparison.load import Run
from dpbal.console import ground, title
from dpbal.errors import ConfigError
from dpbal.modes import GroupKind
from dpbal.report import files
from dpbal.report.output import replacing
from dpbal.report.trace import counters, requests, steps
from dpbal.report.trace.events import Event, Process, process, thread, track, write

NAMES = {
    Process.steps: "steps of each rank",
    Process.requests: "requests by rank",
    Process.waiting: "waiting requests",
    Process.running: "running requests",
    Process.prefill: "prefill tokens",
    Process.kv: "KV cache tokens",
}
SUMMARY = ("requests", "ttft_s", "tpot_s", "e2e_s", "straggler_share", "goodput_rps", "unstable")
SETTING = ("choices", "config", "seed", "versions", "emulation", "requests_digest")
"""Parts of ``result.json`` that a trace carries."""


def export(run: Run, path: Path) -> None:
    """Write the steps and requests of a run as a trace for Perfetto or ``chrome://tracing``.

    Args:
        run: Whose ``requests.parquet`` and ``steps.parquet`` are there.
        path: A gzipped JSON file, so its name should end in ``.json.gz``. Its bytes depend on the
            run only.

    Raises:
        ConfigError: If a table of the run is not there, or nothing can be written to ``path``.
        ResultError: If a file of it is damaged, or of an older dpbal.
    """
    result = files.result(run)
    tables = [_read(run, name) for name in (files.REQUESTS, files.STEPS)]
    about = {"written by": "dpbal", "numbers are": ground(result)}
    about |= {name: result[name] for name in SETTING}
    with replacing(path) as file:
        write(file, about, _events(result, *tables))


def _read(run: Run, name: str) -> polars.DataFrame:
    if not (run.directory / name).is_file():
        raise ConfigError(
            f"{run.directory} holds no {name}, so there is nothing to trace; run it again"
        )
    return files.table(run, name)


def _events(
    result: dict[str, Any], asked: polars.DataFrame, stepped: polars.DataFrame
) -> Iterator[Event]:
    group = result["config"]["group"]
    end_s = _end_s(asked, stepped)
    yield from _run(result, end_s)
    for pid, name in NAMES.items():
        yield from process(pid, f"{name} ({_short_ground(result)})")
    yield from steps.events(stepped, GroupKind(group["kind"]), group["ranks"])
    yield from requests.events(asked, end_s)
    yield from counters.events(stepped)


def _run(result: dict[str, Any], end_s: float) -> Iterator[Event]:
    """One slice over all of it that says what was run."""
    group = result["config"]["group"]
    name = f"{title(result)}, {group['ranks']} {group['kind']} ranks ({ground(result)})"
    yield from process(Process.run, f"run ({ground(result)})")
    yield from thread(Process.run, None, "combination")
    args = {key: result[key] for key in (*SUMMARY, *SETTING)}
    yield Event("X", Process.run, track(None), name, 0, round(end_s * 1e6), "run", None, args)


def _short_ground(result: dict[str, Any]) -> str:
    return "simulated" if result["emulation"] is None else "emulated GPUs"


def _end_s(asked: polars.DataFrame, stepped: polars.DataFrame) -> float:
    """When the last thing happened; where the run was cut off, requests arrive after that."""
    last = asked.select(polars.max_horizontal(col("dispatch_s", "finish_s").max())).item()
    stepped_s = stepped.select(col("end_s").max()).item()
    return max(float(last or 0.0), float(stepped_s or 0.0))
