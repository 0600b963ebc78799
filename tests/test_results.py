"""What a result says of a combination beside its numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dpbal
from dpbal import console
from dpbal.backends.base import Emulation
from dpbal.balancers import BALANCERS
from dpbal.core import LoadTable, Request, View
from dpbal.experiment import Experiment
from dpbal.ledger import InFlight
from dpbal.progress import Progress
from dpbal.results import no_effect, summarise
from dpbal.signals import HoldingTokens
from dpbal.step_time import StepTime
from dpbal.tracking.run_info import RunInfo

SMALL = ("workload.requests=20", "workload.rate=1")


def idle_parts(*overrides: str) -> list[str]:
    config = dpbal.compose(*SMALL, *overrides)
    named = no_effect(config, Experiment(config).requests)
    return [line.partition(":")[0] for line in named]


@pytest.mark.parametrize(
    ("overrides", "idle"),
    [
        (["balancer=round_robin"], {"signal", "transport", "ledger.mode"}),
        (["balancer=minimum_tokens"], set()),
        (["balancer=minimum_tokens", "signal=holding_tokens"], {"ledger.mode"}),
        (["balancer=total_tokens", "signal=holding_tokens"], set()),
        (["balancer=vllm"], {"signal"}),
        (["balancer=minimum_tokens", "budget=interval", "group.kind=independent"], {"budget"}),
        (
            ["balancer=minimum_tokens", "group.ranks=1"],
            {"balancer, signal, transport, ledger.mode"},
        ),
    ],
)
def test_parts_that_change_nothing_are_named(overrides: list[str], idle: set[str]) -> None:
    always = {"workload.load", "backend.prefix_cache"}  # a rate is given, and no prefix hashes
    assert set(idle_parts(*overrides)) == idle | always


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["balancer=least_prefill"], None),
        (["balancer=least_prefill", "indexer.size=4"], "least_prefill does not ask"),
        (["balancer=round_robin", "indexer=oracle"], "round_robin does not ask"),
        (["balancer=consistent_hash", "indexer=oracle"], "consistent_hash does not ask"),
        (["balancer=least_prefill", "balancer.miss_weight=8", "indexer=oracle"], None),
        (["balancer=marginal_prefill"], None),
        (["balancer=marginal_prefill", "indexer=oracle"], None),
        (["balancer=marginal_prefill", "workload=conv_like"], "knows no prefix hashes"),
        (["balancer=lmetric", "backend.prefix_cache=false"], "ranks reuse nothing"),
    ],
)
def test_an_index_that_nobody_asks_or_that_has_nothing_to_know_is_named(
    overrides: list[str], said: str | None
) -> None:
    shared = [] if "workload=conv_like" in overrides else ["workload=mooncake_like"]
    config = dpbal.compose(*SMALL, *shared, *overrides)
    told = [
        line
        for line in no_effect(config, Experiment(config).requests)
        if line.partition(":")[0] == "indexer"
    ]
    assert len(told) == (said is not None)
    assert said is None or said in told[0]


@pytest.mark.parametrize("caches", [True, False])
@pytest.mark.parametrize("workload", ["mooncake_like", "conv_like"])
def test_a_store_that_ranks_share_is_of_use_where_prefixes_are_kept(
    workload: str, caches: bool
) -> None:
    store = ("backend.shared_prefix_store=true", f"backend.prefix_cache={caches}")
    idle = idle_parts(f"workload={workload}", *store)
    useful = workload == "mooncake_like" and caches
    assert ("backend.shared_prefix_store" in idle) == (not useful)


@pytest.mark.parametrize("name", sorted(n for n in BALANCERS if BALANCERS[n].chooses))
def test_what_a_balancer_says_of_the_ledger_is_so(name: str) -> None:
    def choices(requests_in_flight: list[int]) -> list[int]:
        table = LoadTable(4)
        table.reports["version"] = 1
        table.update_selectable()
        counts = np.array(requests_in_flight, np.int64)
        in_flight = InFlight(counts, counts * 100, counts * 0.01, counts * 100)
        view = View(table, in_flight, np.zeros(4, np.int64), HoldingTokens(), StepTime())
        view.cached_tokens, view.own_prefill_s = np.zeros(4, np.int64), np.zeros(4)
        view.cached_blocks = np.zeros(4, np.int64)
        balancer = BALANCERS.build(name, {})
        balancer.start(4, seed=3)
        return [balancer.choose(Request(k, 0.0, 10), view) for k in range(8)]

    differ = choices([0, 0, 0, 0]) != choices([30, 0, 5, 2])
    cls = BALANCERS[name]
    assert differ == (cls.uses_reports and cls.uses_in_flight)


def summary(emulation: Emulation | None) -> dict[str, Any]:
    """Of a run of the simulator, as if its records were those of ``emulation``."""
    config = dpbal.compose(*SMALL, "group.ranks=2", "compare=false")
    experiment = Experiment(config)
    records = replace(experiment.run(Progress(False)), emulation=emulation)
    choices = RunInfo(config, Path()).choices
    return summarise(config, choices, experiment.requests, records, None, None)


def test_a_result_says_whether_its_engines_were_real(capsys: pytest.CaptureFixture[str]) -> None:
    simulated, real = summary(None), summary(Emulation("vLLM 0.32.0", 2.5, 0.013))
    assert simulated["emulation"] is None
    assert real["emulation"] == {
        "engines": "vLLM 0.32.0",
        "dilation": 2.5,
        "late_share": 0.013,
        "alone_share": None,
        "engine_prefix_hit_share": None,
    }
    shown = []
    for result in (simulated, real):
        console.show(result, Path("outputs"))
        shown.append(" ".join(capsys.readouterr().out.split()))
    assert "(simulated)" in shown[0]
    assert "; dispatch " in shown[0]
    assert "came late" not in shown[0]
    assert "(vLLM 0.32.0 engines, emulated GPUs, dilation 2.5)" in shown[1]
    assert "the host came late to 1.3% of steps; dispatch " in shown[1]
    assert "simulated" not in shown[1]


@pytest.mark.parametrize(("alone_share", "said"), [(None, 0), (0.0, 0), (0.02, 1)])
def test_ranks_that_did_not_know_the_others_are_spoken_of(
    alone_share: float | None, said: int
) -> None:
    lines = console.remarks(summary(Emulation("vLLM 0.32.0", 2.0, 0.0, alone_share)))
    told = [line for line in lines if "did not know what the others have" in line]
    assert len(told) == said
    assert all(line.startswith("in 2.0% of steps") for line in told)


@pytest.mark.parametrize("late_share", [0.0, 0.049, 0.051, 1.0])
def test_a_host_that_is_too_slow_is_told_what_to_type(late_share: float) -> None:
    lines = console.remarks(summary(Emulation("vLLM 0.32.0", 2.0, late_share)))
    told = [line for line in lines if "the host is too slow" in line]
    assert len(told) == (late_share > 0.05)
    assert all("type backend.dilation=8" in line for line in told)


@pytest.mark.parametrize(("share", "said"), [(None, 0), (0.0, 0), (0.25, 1)])
def test_what_the_engines_counted_stands_beside_what_dpbal_counted(
    share: float | None, said: int
) -> None:
    result = summary(Emulation("vLLM 0.32.0", 2.0, 0.0, None, share))
    told = [line for line in console.remarks(result) if "prefix hits" in line]
    assert told == ["prefix hits: 0.0% of prompt tokens, 25.0% by the engines' own count"] * said
