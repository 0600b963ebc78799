"""A few of the runs of ``experiments.faults``, in each of which a random participant is killed."""

from __future__ import annotations

import pytest

from experiments.faults.scene import Plan, play
from tests.transports.groups import CASES, PARAMS, Case

SEEDS = (0, 2, 5)
"""Which kill ranks and dispatchers, of whom some start again, and an owner."""


def test_the_seeds_kill_one_of_each_kind() -> None:
    plans = [Plan.draw(seed, CASES[0]) for seed in SEEDS]
    assert {plan.victim.split()[0] for plan in plans} == {"rank", "dispatcher", "owner"}
    assert {plan.restart_s is None for plan in plans} == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("case", PARAMS)
def test_nothing_is_left_and_nothing_stays_in_flight(case: Case) -> None:
    for seed in SEEDS:
        row = play(case, seed)
        assert row["is_good"], row
