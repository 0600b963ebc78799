"""What a result says of a combination beside its numbers."""

from __future__ import annotations

import numpy as np
import pytest

import dpbal
from dpbal.balancers import BALANCERS
from dpbal.core import LoadTable, Request, View
from dpbal.experiment import Experiment
from dpbal.ledger import InFlight
from dpbal.results import no_effect
from dpbal.signals import HoldingTokens
from dpbal.step_time import StepTime

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


@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_what_a_balancer_says_of_the_ledger_is_so(name: str) -> None:
    def choices(requests_in_flight: list[int]) -> list[int]:
        table = LoadTable(4)
        table.reports["version"] = 1
        table.update_selectable()
        counts = np.array(requests_in_flight, np.int64)
        in_flight = InFlight(counts, counts * 100, counts * 0.01)
        view = View(table, in_flight, np.zeros(4, np.int64), HoldingTokens(), StepTime())
        balancer = BALANCERS.build(name, {})
        balancer.start(4, seed=3)
        return [balancer.choose(Request(k, 0.0, 10), view) for k in range(8)]

    differ = choices([0, 0, 0, 0]) != choices([9, 0, 5, 2])
    cls = BALANCERS[name]
    assert differ == (cls.uses_reports and cls.uses_in_flight)
