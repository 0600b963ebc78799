"""Real engines and the simulator do the same work in the same steps, by count and not by clock."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

import dpbal
from tests.vllm.runs import Runs

pytestmark = pytest.mark.slow

DILATION = {"llama31_8b_h200": 20, "deepseek_v3_h200": 10}
"""So that a step lasts long enough for every arrival to fall into the step that it is meant for."""

FIRST = {"independent": 2, "lockstep": 1}
"""Requests that arrive at once: one for each rank that starts by itself."""

SHARED = ("group.ranks=2", "compare=false", "workload.load=null")


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    with Runs() as made:
        yield made


def simulate(directory: Path, *words: str) -> None:
    """Run the simulator, here."""
    dpbal.run(dpbal.compose("backend=simulator", *words), directory, show=False)


def compare(
    runs: Runs,
    folder: Path,
    *words: str,
    profile: str,
    dilation: float | None = None,
    engines: Sequence[str] = (),
    simulator: Sequence[str] = (),
    balancer: str = "balancer=round_robin",
) -> tuple[polars.DataFrame, polars.DataFrame]:
    """Steps with work, and requests, of both backends; what they count must be equal."""
    line = (balancer, *SHARED, f"profile={profile}", *words)
    dilated = f"backend.dilation={dilation or DILATION[profile]}"
    runs.run(folder / "vllm", "backend=vllm", dilated, *engines, *line)
    simulate(folder / "simulator", "transport=shm", *simulator, *line)
    steps, requests = {}, {}
    for backend in ("vllm", "simulator"):
        rows = polars.read_parquet(folder / backend / "steps.parquet")
        steps[backend] = rows.filter(polars.col("prefill_tokens") + polars.col("decode_seqs") > 0)
        requests[backend] = polars.read_parquet(folder / backend / "requests.parquet")
    counted = ["rank", "dispatcher", "prompt_tokens", "output_tokens", "cached_tokens"]
    counted += ["preemptions", "outcome"]
    assert requests["vllm"].select(counted).equals(requests["simulator"].select(counted))
    counted = ["prefill_tokens", "decode_seqs", "next_tokens", "running", "preemptions"]
    counted += ["kv_used_tokens"]
    for rank in (0, 1):
        ours, theirs = (
            rows.filter(polars.col("rank") == rank).select(counted)
            for rows in (steps["simulator"], steps["vllm"])
        )
        assert ours.equals(theirs), (
            f"rank {rank}: {list(zip(ours.rows(), theirs.rows(), strict=False))}"
        )
    return steps["vllm"], requests["vllm"]


def azure_trace(path: Path, rows: list[tuple[float, int, int]]) -> Path:
    """A trace of (arrival_s, prompt, output) in Azure's format."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["TIMESTAMP", "ContextTokens", "GeneratedTokens"])
        for at_s, prompt, output in rows:
            writer.writerow([f"2023-11-16 18:00:{at_s:010.7f}", prompt, output])
    return path


def burst(
    requests: int, longest: int, first: int, most_outputs: int = 24
) -> list[tuple[float, int, int]]:
    """The first requests at once, and all others in the middle of their first step."""
    random = np.random.default_rng(1)
    sizes = random.integers([20, 4], [longest, most_outputs], (requests - first, 2)).tolist()
    later_s = [0.004 + 0.0001 * k for k in range(requests - first)]
    rest = [(at_s, *size) for at_s, size in zip(later_s, sizes, strict=True)]
    return [(0.0, 900, 12)] * first + rest


@pytest.mark.parametrize(
    ("kind", "profile"), [("independent", "llama31_8b_h200"), ("lockstep", "deepseek_v3_h200")]
)
def test_steps_preemptions_and_choices_are_equal(
    runs: Runs, tmp_path: Path, kind: str, profile: str
) -> None:
    trace = azure_trace(tmp_path / "trace.csv", burst(40, 700, FIRST[kind]))
    steps, requests = compare(
        runs,
        tmp_path,
        f"group.kind={kind}",
        "workload=azure_conv",
        f"workload.path={trace}",
        "backend.kv_capacity_tokens=2080",
        "backend.max_num_batched_tokens=512",
        "backend.prefix_cache=false",  # which would find what a preempted request left
        profile=profile,
    )
    assert requests["preemptions"].sum() > 0
    assert steps["waiting"].to_numpy().max() > 0
    assert steps["prefill_tokens"].sum() > requests["prompt_tokens"].sum()  # some was recomputed


LEVEL = (
    "budget=level",
    "budget.ttft_weight=null",
    "budget.ttft_deadline_s=null",
    "budget.learns=false",
)  # no clock
TIME_CAP = ("budget=time_cap", "budget.step_s=0.01")
ALIGNED = ("budget=aligned", "budget.timeout_iters=6", "budget.batching_wait_iters=2")
INTERVAL = ("budget=interval", "budget.interval_steps=3")
VLLM_INTERVAL = ("budget=fixed", "backend.prefill_schedule_interval=3")


@pytest.mark.parametrize(
    ("engines", "simulator", "alone", "dilation"),
    [
        (LEVEL, LEVEL, 1, None),  # one step with tokens comes before all ranks know each other
        (ALIGNED, ALIGNED, 1, None),
        (TIME_CAP, TIME_CAP, None, 13),  # with a shorter first step
        (VLLM_INTERVAL, INTERVAL, None, None),
    ],
    ids=["level", "aligned", "time_cap", "vLLM's own interval"],
)
def test_steps_under_a_budget_are_equal(
    runs: Runs,
    tmp_path: Path,
    engines: tuple[str, ...],
    simulator: tuple[str, ...],
    alone: int | None,
    dilation: float | None,
) -> None:
    profile = "deepseek_v3_h200"
    trace = azure_trace(tmp_path / "trace.csv", burst(10, 2000, 1, most_outputs=12))
    words = (
        "group.kind=lockstep",
        "workload=azure_conv",
        f"workload.path={trace}",
        "backend.max_num_batched_tokens=512",
        "backend.kv_capacity_tokens=8320",
        "backend.prefix_cache=false",
    )
    steps, _ = compare(
        runs,
        tmp_path,
        *words,
        profile=profile,
        dilation=dilation,
        engines=engines,
        simulator=simulator,
    )
    emulation = json.loads((tmp_path / "vllm" / "result.json").read_text())["emulation"]
    assert emulation["alone_share"] == (None if alone is None else alone / len(steps))
    line = ("balancer=round_robin", *SHARED, f"profile={profile}", *words, "budget=fixed")
    simulate(tmp_path / "unlimited", *line)
    unlimited = polars.read_parquet(tmp_path / "unlimited" / "steps.parquet")
    unlimited = unlimited.filter(polars.col("prefill_tokens") + polars.col("decode_seqs") > 0)
    prefills = [rows["prefill_tokens"].to_list() for rows in (steps, unlimited)]
    assert prefills[0] != prefills[1]  # the budget did something


def test_prefix_hits_and_the_choices_for_them_are_equal(runs: Runs, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    lines: list[dict[str, Any]] = []
    for number in range(24):
        shared = int(random.integers(0, 4))
        own = int(random.integers(1, 3))
        hashes = [*range(shared), *(1000 + 10 * number + k for k in range(own))]
        tail = int(random.integers(1, 512))
        if number < FIRST["independent"]:  # their first step has room for all arrivals
            hashes, tail = [1000 + 10 * number + k for k in range(5)], 100
        lines.append(
            {
                "timestamp": 0 if number < FIRST["independent"] else 8 + number // 8,
                "input_length": 512 * len(hashes) - 512 + tail,
                "output_length": int(random.integers(2, 12)),
                "hash_ids": hashes,
            }
        )
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, requests = compare(
        runs,
        tmp_path,
        "group.kind=independent",
        "workload=mooncake_conversation",
        "workload.spread_bins=false",
        f"workload.path={trace}",
        profile="llama31_8b_h200",
        balancer="+balancer=marginal_prefill",
    )
    assert requests["cached_tokens"].sum() > 0
    result = json.loads((tmp_path / "vllm" / "result.json").read_text())
    counted = result["emulation"]["engine_prefix_hit_share"]
    assert result["prefix_hit_share"] == pytest.approx(counted, rel=1e-12)
