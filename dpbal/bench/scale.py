"""What 10,000 to a million requests take in time and memory, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from dpbal.bench.machine import peak_rss_bytes
from dpbal.bench.simulator import Case, compile_all, run_and_keep, spread
from dpbal.experiment import Experiment

REQUESTS = (10_000, 100_000, 1_000_000)

MEMORY_TARGET_BYTES = 2e9
"""Most memory of a whole run of a million requests, its files written."""


@dataclass(frozen=True)
class ScaleRun:
    """One run, in a process that did nothing else.

    Attributes:
        workload: Which requests.
        kind: How the ranks step.
        ranks: How many there are.
        balancer: The rule.
        requests: How many ran.
        rank_steps: Steps, counted for each rank.
        prepare_s: Making the requests and finding the rate at which the pooled machine saturates.
        setup_s: Making the arrays before the loop and the records after it.
        loop_s: The loop over the arrivals.
        core_share: Share of a core that set-up and loop had.
        report_s: Metrics and all files of a run directory.
        peak_rss_run_bytes: Most resident memory until the records were there.
        peak_rss_bytes: Most resident memory until the files were written.
    """

    requests: int
    rank_steps: int
    prepare_s: float
    setup_s: float
    loop_s: float
    core_share: float
    report_s: float
    peak_rss_run_bytes: int
    peak_rss_bytes: int


@dataclass(frozen=True)
class ScaleRow:
    """All runs of one case.

    Seconds are medians over the runs, memory is the most of any run, ``requests_per_s`` is
    ``(min, median, max)`` of the loop, and ``target_bytes`` what ``peak_rss_bytes`` must be under.
    """

    workload: str
    kind: str
    ranks: int
    balancer: str
    requests: int
    rank_steps: int
    prepare_s: float
    setup_s: float
    loop_s: float
    core_share: float
    report_s: float
    requests_per_s: tuple[float, float, float]
    peak_rss_run_bytes: int
    peak_rss_bytes: int
    target_bytes: float


def measure(cases: Sequence[Case], repeats: int) -> list[ScaleRow]:
    """Run each case in fresh processes, so that its peak memory is its own; cases take turns."""
    context = multiprocessing.get_context("spawn")
    runs: list[list[ScaleRun]] = [[] for _ in cases]
    for _ in range(repeats):
        for case, of_case in zip(cases, runs, strict=True):
            with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
                of_case.append(process.submit(measure_one, case).result())
    return [_row(case, of_case) for case, of_case in zip(cases, runs, strict=True)]


def measure_one(case: Case) -> ScaleRun:
    """Run a case once in this process, and write its files into a folder that is then removed."""
    from dpbal import results

    compile_all([case])
    config = case.config()
    start_s = time.perf_counter()
    experiment = Experiment(config)
    prepared_s = time.perf_counter()
    took, records = run_and_keep(experiment)
    peak_rss_run_bytes = peak_rss_bytes()
    with TemporaryDirectory() as folder:
        reporting_s = time.perf_counter()
        summary = results.summarise(config, {}, experiment.requests, records, None, None)
        results.write(Path(folder), config, summary, records)
        report_s = time.perf_counter() - reporting_s
    return ScaleRun(
        requests=took.requests,
        rank_steps=took.rank_steps,
        prepare_s=prepared_s - start_s,
        setup_s=took.setup_s,
        loop_s=took.loop_s,
        core_share=took.core_share,
        report_s=report_s,
        peak_rss_run_bytes=peak_rss_run_bytes,
        peak_rss_bytes=peak_rss_bytes(),
    )


def _row(case: Case, runs: Sequence[ScaleRun]) -> ScaleRow:
    first = runs[0]
    return ScaleRow(
        workload=case.workload,
        kind=case.kind,
        ranks=case.ranks,
        balancer=case.balancer,
        requests=first.requests,
        rank_steps=first.rank_steps,
        prepare_s=median(run.prepare_s for run in runs),
        setup_s=median(run.setup_s for run in runs),
        loop_s=median(run.loop_s for run in runs),
        core_share=median(run.core_share for run in runs),
        report_s=median(run.report_s for run in runs),
        requests_per_s=spread([first.requests / run.loop_s for run in runs]),
        peak_rss_run_bytes=max(run.peak_rss_run_bytes for run in runs),
        peak_rss_bytes=max(run.peak_rss_bytes for run in runs),
        target_bytes=MEMORY_TARGET_BYTES,
    )
