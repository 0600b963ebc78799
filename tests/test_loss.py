"""Where the loss goes: every share is that of a run that anyone can type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dpbal
from dpbal import console
from dpbal.backends.base import BACKENDS, Backend, Parts, Records
from dpbal.backends.simulator.simulator import Simulator
from dpbal.experiment import Experiment
from dpbal.loss import BY_PREFIX, PLAIN, best_known
from dpbal.parts import build
from dpbal.workloads import Requests

LOCKSTEP = ("workload.requests=300", "group.ranks=4")
INDEPENDENT = (*LOCKSTEP, "group.kind=independent", "profile=llama31_8b_h100")
POOR = (
    *("balancer=minimum_tokens", "transport=poll_1s", "ledger.mode=overwrite"),
    *("budget=aligned", "budget.ranks=4"),
)
PLACEMENT = ("balancer=least_prefill", "transport=local", "ledger.mode=acknowledge")
PREFIX_PLACEMENT = (
    *("balancer=marginal_prefill", "indexer=own_record"),
    *("transport=local", "ledger.mode=acknowledge"),
)
BUDGET = ("budget=level",)
LEVEL = {"budget": {"name": "level"}}
FRESH = ("transport=local", "backend.vector_lag=0")


def result_of(folder: Path, *overrides: str) -> dict[str, Any]:
    return dpbal.run(dpbal.compose(*overrides), folder, show=False)


def removed(result: dict[str, Any], part: str) -> dict[str, float | None]:
    shares: dict[str, float | None] = result["loss"][part]["removed"]
    return shares


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A result in which everything is late and nothing is well chosen."""
    return result_of(tmp_path_factory.mktemp("poor"), *LOCKSTEP, *POOR)


def without(lines: tuple[str, ...], *others: str) -> tuple[str, ...]:
    """Overrides, those of the same key as one of the others left out, and then the others."""
    keys = {line.partition("=")[0] for line in others}
    if "budget" in keys:
        keys.add("budget.ranks")
    return (*(line for line in lines if line.partition("=")[0] not in keys), *others)


@pytest.mark.parametrize(
    ("part", "overrides"),
    [
        ("placement", PLACEMENT),
        ("budget", BUDGET),
        ("staleness", FRESH),
        ("all", (*PLACEMENT, *BUDGET, "backend.vector_lag=0")),
    ],
)
def test_a_part_is_replaced_on_the_same_requests(
    poor: dict[str, Any], tmp_path: Path, part: str, overrides: tuple[str, ...]
) -> None:
    typed = result_of(tmp_path, *LOCKSTEP, *without(POOR, *overrides), "compare=false")
    assert typed["requests_digest"] == poor["requests_digest"]
    for metric, statistics in poor["loss"][part].items():
        if metric != "removed":
            assert statistics.items() <= typed[metric].items()
    own, best, least = (side["e2e_s"]["mean"] for side in (poor, typed, poor["pooled"]))
    assert poor["loss"]["lost_s"]["e2e_mean"] == pytest.approx(own - least)
    share = removed(poor, part)["e2e_mean"]
    assert share == pytest.approx((own - best) / (own - least))
    assert share != 0


@pytest.mark.parametrize(
    ("typed", "nodes"), [(PLACEMENT, PLAIN), (PREFIX_PLACEMENT, BY_PREFIX), (BUDGET, LEVEL)]
)
def test_the_best_known_parts_are_the_files_of_their_names(
    typed: tuple[str, ...], nodes: dict[str, Any]
) -> None:
    config = dpbal.compose(*typed)
    for family, node in nodes.items():
        chosen = getattr(config, family)
        if family == "ledger":
            assert node == chosen
        else:
            assert build(family, node) == build(family, chosen)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (("workload=mooncake_like",), "marginal_prefill"),
        (("workload=mooncake_like", "backend.prefix_cache=false"), "least_prefill"),
        (("workload=conv_like",), "least_prefill"),
    ],
)
def test_the_best_known_placement_follows_hits_where_there_can_be_any(
    overrides: tuple[str, ...], name: str
) -> None:
    experiment = Experiment(dpbal.compose("workload.requests=20", *overrides))
    best = best_known(experiment.requests, experiment.backend.simulator())
    assert best["placement"]["balancer"]["name"] == name


def test_requests_that_share_prefixes_are_placed_by_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = (*LOCKSTEP, "workload=mooncake_like", "balancer=minimum_tokens", "transport=poll_1s")
    result = result_of(tmp_path / "own", *shared)
    typed = result_of(tmp_path / "best", *without(shared, *PREFIX_PLACEMENT), "compare=false")
    for metric, statistics in result["loss"]["placement"].items():
        if metric != "removed":
            assert statistics.items() <= typed[metric].items()
    assert removed(result, "placement")["e2e_mean"] != 0
    console.show(result, tmp_path)
    text = " ".join(capsys.readouterr().out.split())
    assert "the best known part (marginal_prefill, level, no delay)" in text


def test_what_is_already_the_best_known_has_nothing_to_gain(tmp_path: Path) -> None:
    best = (*PLACEMENT, *BUDGET, "backend.vector_lag=0")
    result = result_of(tmp_path, *LOCKSTEP, *best)
    for part in ("placement", "budget", "staleness", "all"):
        assert removed(result, part)["ttft_mean"] == 0
        assert set(removed(result, part).values()) <= {0, None}


def test_reports_that_nobody_reads_lose_nothing_by_being_late(tmp_path: Path) -> None:
    result = result_of(tmp_path, *LOCKSTEP, "balancer=round_robin", "transport=poll_1s")
    assert set(removed(result, "staleness").values()) == {0.0}


def prefill_only(folder: Path, spacing_s: float, prompts: list[int]) -> tuple[str, ...]:
    """Overrides for two ranks that step alone, and prompts at random times, at 1 ms a token."""
    arrivals_s = np.random.default_rng(0).exponential(spacing_s, len(prompts)).cumsum()
    rows = [f"{at_s},{tokens},1" for at_s, tokens in zip(arrivals_s, prompts, strict=True)]
    trace = folder / "trace.csv"
    trace.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]))
    workload = ("workload=trace_csv", f"workload.path={trace}", "workload.load=null")
    costs = ("profile=i8b_prototype", "profile.prefill_s_per_token=1e-3")
    return (*workload, *costs, "group.ranks=2", "group.kind=independent", "balancer=round_robin")


def test_round_robin_on_prompts_that_alternate_loses_by_its_placement(tmp_path: Path) -> None:
    alternating = prefill_only(tmp_path, 1.0, [1600, 100] * 200)  # one rank gets all long ones
    result = result_of(tmp_path / "run", *alternating)
    share = removed(result, "placement")["ttft_mean"]
    assert share is not None
    assert 0.5 < share < 1  # the rest is that a rank is half as fast as both
    assert result["loss"]["budget"] is None  # ranks that step alone wait for nobody
    assert result["loss"]["all"] == result["loss"]["placement"]
    assert removed(result, "staleness")["ttft_mean"] == 0


def test_shares_are_null_where_queues_grow_all_along(tmp_path: Path) -> None:
    overload = prefill_only(tmp_path, 0.4, [1600] * 200)
    result = result_of(tmp_path / "run", *overload)
    assert result["unstable"]
    for part in ("placement", "staleness"):
        assert set(removed(result, part).values()) == {None}
        assert result["loss"][part]["e2e_s"]["mean"] > 0
    assert result["loss"]["lost_s"]["e2e_mean"] > 0


@pytest.mark.parametrize("lines", [("compare=false",), ("group.ranks=1",)])
def test_nothing_is_split_where_there_is_nothing_to_split(
    tmp_path: Path, lines: tuple[str, ...]
) -> None:
    assert result_of(tmp_path, *without(LOCKSTEP, *lines))["loss"] is None


@dataclass
class SlowEngines(Backend):
    """Engines that are not the simulator's: everything takes them three times as long."""

    def simulator(self) -> Simulator:
        return Simulator()

    def run(
        self, requests: Requests, parts: Parts, progress: Callable[[int], None] | None = None
    ) -> Records:
        constants = {
            name: 3 * getattr(parts.step_time, name)
            for name in ("fixed_s", "prefill_s_per_token", "decode_s_per_seq", "kv_s_per_token")
        }
        return Simulator().run(
            requests, replace(parts, step_time=replace(parts.step_time, **constants)), progress
        )


def test_the_loss_of_other_engines_is_that_of_their_simulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS._classes, "slow", SlowEngines)
    simulated = dpbal.compose(*LOCKSTEP, "balancer=minimum_tokens")
    real = replace(simulated, backend={"name": "slow"})
    results = [
        dpbal.run(config, tmp_path / config.backend["name"], show=False)
        for config in (simulated, real)
    ]
    assert results[0]["e2e_s"] != results[1]["e2e_s"]
    assert results[0]["loss"] == results[1]["loss"]


def test_a_run_prints_where_the_loss_goes(
    poor: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console.show(poor, tmp_path)
    text = capsys.readouterr().out
    shown = [line.split() for line in text.splitlines()]
    place = shown.index(["lost", "to", "pooled", "placement", "budget", "staleness", "all"])
    e2e = next(words for words in shown[place:] if words[:2] == ["E2E", "mean"])
    parts = ("placement", "budget", "staleness", "all")
    assert e2e[4:] == [f"{removed(poor, part)['e2e_mean']:.0%}" for part in parts]
    assert "the best known part (least_prefill, level, no delay)" in " ".join(text.split())


def test_a_run_without_lockstep_prints_no_share_of_a_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dpbal.compose(*INDEPENDENT, "balancer=round_robin")
    dpbal.run(config, tmp_path)
    text = " ".join(capsys.readouterr().out.split())
    assert "the best known part (least_prefill, no delay)" in text
