"""A request that waits counts without what its dispatcher believes cached, until it is admitted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from dpbal.backends.simulator.simulator import Simulator
from dpbal.budgets import UNLIMITED, Budget, Limits
from dpbal.modes import GroupKind
from dpbal.step_time import StepTime
from tests.simulator.runs import LOCKSTEP, Guess, Probe, Run, simulate, workload

STEP_TIME = StepTime(prefill_s_per_token=1e-6, attention_s_per_pair=1e-7, common_fixed_s=1.0)
"""Every step takes little more than a second."""

PREFIX = [1, 2, 3, 4]
ROWS = [(0.0, 65, 6), (0.5, 90, 3), (5.5, 5, 1), (7.5, 5, 1), (9.5, 5, 1)]
"""The second waits for the first, whose prefix it shares, and is prefilled from 6 s to 8 s."""

TRUE_BLOCKS = 4


def run(kind: GroupKind, blocks: int, budget: Budget | None = None) -> tuple[Run, Probe]:
    """One place in the batch; so many blocks are expected of the second request."""
    probe = Probe()
    done = simulate(
        workload(ROWS, hashes=[PREFIX, [*PREFIX, 5], [], [], []]),
        STEP_TIME,
        kind=kind,
        engine=Simulator(max_num_seqs=1, max_num_batched_tokens=80, vector_lag=0),
        balancer=lambda: probe,
        budget=budget,
        indexer=lambda: Guess(lambda request: blocks if request.id == 1 else 0),
    )
    return done, probe


@pytest.mark.parametrize("kind", GroupKind)
@pytest.mark.parametrize("blocks", [0, 2, TRUE_BLOCKS, 5, 100])
def test_its_prefill_is_the_prompt_without_what_is_expected(kind: GroupKind, blocks: int) -> None:
    _, probe = run(kind, blocks)
    expected = min(16 * blocks, 89)  # the last token is always computed
    assert probe.seen("waiting").tolist()[2] == 1
    assert probe.seen("prefill_tokens")[2] == 90 - expected
    assert probe.seen("prefill_s")[2] == pytest.approx(STEP_TIME.prefill_s(90 - expected, expected))
    assert probe.seen("waiting_tokens")[2] == 90
    assert probe.seen("holding_tokens")[2] == 65 + 5 + 90


@pytest.mark.parametrize("kind", GroupKind)
def test_an_expectation_that_is_right_gives_the_true_prefill(kind: GroupKind) -> None:
    done, probe = run(kind, TRUE_BLOCKS)
    cached = int(done.requests["cached_tokens"][1])
    assert cached == 16 * TRUE_BLOCKS
    took = done.steps["prefill_tokens"][done.steps["end_s"] > 6.5]
    assert took[0] == probe.seen("prefill_tokens")[2] == 90 - cached


@pytest.mark.parametrize("kind", GroupKind)
@pytest.mark.parametrize("blocks", [0, 1, 5])
def test_a_wrong_expectation_is_gone_once_it_is_admitted(kind: GroupKind, blocks: int) -> None:
    right, wrong = run(kind, TRUE_BLOCKS), run(kind, blocks)
    assert right[0].requests.tobytes() == wrong[0].requests.tobytes()
    for name in ("prefill_tokens", "prefill_s"):
        assert right[1].seen(name)[2] != wrong[1].seen(name)[2]
        assert right[1].seen(name)[3:].tolist() == wrong[1].seen(name)[3:].tolist()
    assert not wrong[0].state.ranks["prefill_tokens"].any()
    assert not wrong[0].state.ranks["prefill_squares"].any()


@dataclass
class Listener(Budget):
    """Limits nothing; keeps the vectors it was shown."""

    vectors: list[np.ndarray] = field(default_factory=list)

    def limits(self, step: int, vectors: np.ndarray) -> Limits:
        """None."""
        self.vectors.append(vectors.copy())
        n = len(vectors)
        return Limits(np.full(n, UNLIMITED), np.full(n, np.inf))


@pytest.mark.parametrize("blocks", [0, 2, TRUE_BLOCKS])
def test_budgets_are_told_of_what_can_be_admitted_without_what_is_expected(blocks: int) -> None:
    budget = Listener()
    run(LOCKSTEP, blocks, budget)
    queued = [int(vectors[0]["prefill_tokens"]) for vectors in budget.vectors]
    # six steps hold the first request, and the second cannot be admitted beside it
    assert queued[:7] == [65, 0, 0, 0, 0, 0, 90 - 16 * blocks]
    prefill_s = STEP_TIME.prefill_s(90 - 16 * blocks, 16 * blocks)
    assert budget.vectors[6][0]["prefill_s"] == pytest.approx(prefill_s)
