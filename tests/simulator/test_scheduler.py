"""The compiled ranks do, step by step, what others in plain Python do."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpbal.backends.base import Outcome
from dpbal.backends.simulator.simulator import Simulator
from dpbal.modes import GroupKind
from dpbal.step_time import StepTime
from tests.simulator.oracle import Group, Job, Rank
from tests.simulator.runs import INDEPENDENT, LOCKSTEP, Guess, Probe, simulate, workload

STEP_TIME = StepTime(
    fixed_s=6e-3,
    prefill_s_per_token=70e-6,
    decode_s_per_seq=200e-6,
    kv_s_per_token=3e-6,
    attention_s_per_pair=1e-6,
    common_fixed_s=2e-3,
    common_s_per_token=7e-6,
    mixed_penalty_s=1e-3,
)

Rows = list[tuple[float, int, int]]


@st.composite
def crowds(draw: st.DrawFn) -> Rows:
    """Requests that come faster than a small rank can serve them."""
    sizes = st.tuples(st.integers(0, 30), st.integers(1, 70), st.integers(1, 40))
    drawn = draw(st.lists(sizes, min_size=1, max_size=25))
    arrivals = accumulate(gap for gap, _, _ in drawn)
    # a prime share of a step, so that nothing ends at the very moment at which something arrives
    rows = zip(arrivals, drawn, strict=True)
    return [(at * 0.00137, prompt, output) for at, (_, prompt, output) in rows]


def agree(
    rows: Rows, engine: Simulator, kind: GroupKind, ranks: int, step_time: StepTime = STEP_TIME
) -> np.ndarray:
    """Compare all that can be seen of the ranks and of plain ones, and return the preemptions."""
    probe = Probe(turns=ranks)
    run = simulate(
        workload(rows),
        step_time,
        kind=kind,
        ranks=ranks,
        engine=engine,
        balancer=lambda: probe,
        indexer=lambda: Guess(lambda request: int(request.id) % 4),  # wrong but for every fourth
    )
    jobs = [Job(*row, min(k % 4 * 16, row[1] - 1)) for k, row in enumerate(rows)]
    plain = [plain_rank(engine) for _ in range(ranks)]
    if kind is GroupKind.lockstep:
        groups = [Group(step_time, plain)]
        groups[0].run([(k % ranks, job) for k, job in enumerate(jobs)])
    else:
        groups = [Group(step_time, [rank]) for rank in plain]
        for r, group in enumerate(groups):
            group.run([(0, job) for job in jobs[r::ranks]])

    for name in ("first_token_s", "finish_s"):
        close(run.requests[name], [getattr(job, name) for job in jobs], name)
    assert run.requests["preemptions"].tolist() == [job.preemptions for job in jobs]
    assert run.requests["output_tokens"].tolist() == [job.generated for job in jobs]
    assert (run.requests["outcome"] == Outcome.failed).tolist() == [job.failed for job in jobs]

    for r in range(ranks):
        group, place = (groups[0], r) if kind is GroupKind.lockstep else (groups[r], 0)
        own = run.steps[run.steps["rank"] == r]
        close(own["end_s"], group.ends_s, "end_s")
        close(own["local_s"], [step[place] for step in group.local_s], "local_s")
        for now_s, seen in zip(probe.now_s, probe.reports, strict=True):
            earlier = bisect_right(group.ends_s, now_s)
            if earlier:
                for name, value in group.reports[earlier - 1][place].items():
                    close(seen[r][name], [value], f"{name} of rank {r} seen at {now_s}")
    return np.asarray(run.requests["preemptions"])


def plain_rank(engine: Simulator) -> Rank:
    blocks = (engine.kv_capacity_tokens or 0) // engine.block_size
    return Rank(engine.max_num_batched_tokens, engine.max_num_seqs, engine.block_size, blocks)


def close(simulated: np.ndarray, expected: Sequence[float], name: str) -> None:
    np.testing.assert_allclose(simulated, expected, rtol=1e-9, atol=1e-12, err_msg=name)


@settings(max_examples=200, derandomize=True)
@given(
    crowds(),
    st.sampled_from([1, 4, 16]),
    st.integers(5, 24),
    st.sampled_from([8, 33, 64, 2048]),
    st.sampled_from([1, 3, 64]),
    st.sampled_from(GroupKind),
    st.integers(1, 3),
    st.booleans(),
)
def test_ranks_agree_with_plain_ones(
    rows: Rows,
    block_size: int,
    sixteens: int,
    max_tokens: int,
    max_seqs: int,
    kind: GroupKind,
    ranks: int,
    pad: bool,
) -> None:
    engine = Simulator(max_tokens, max_seqs, block_size, 16 * sixteens)
    agree(rows, engine, kind, ranks, replace(STEP_TIME, pad_to_largest=pad))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("kind", "ranks"), [(INDEPENDENT, 1), (INDEPENDENT, 2), (LOCKSTEP, 2)])
def test_they_agree_on_long_runs_full_of_preemptions(
    kind: GroupKind, ranks: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(0.08 / ranks, 400))
    prompts = rng.integers(1, 90, 400)
    outputs = rng.integers(1, 60, 400)
    rows = list(zip(arrival_s.tolist(), prompts.tolist(), outputs.tolist(), strict=True))
    engine = Simulator(48, 16, int(rng.choice([1, 4, 16])), 336)
    preemptions = agree(rows, engine, kind, ranks)
    assert (preemptions > 0).sum() > 20
    assert preemptions.max() > 1
