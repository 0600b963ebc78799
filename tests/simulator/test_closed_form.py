"""Small runs whose times can be written down: the simulator gives the same to nine digits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dpbal.backends.base import Outcome
from dpbal.backends.simulator.simulator import Simulator
from dpbal.errors import WorkloadError
from dpbal.metrics import straggler_share
from dpbal.modes import GroupKind
from dpbal.reference import run_pooled, saturation_rate
from dpbal.step_time import StepTime
from tests.simulator.runs import INDEPENDENT, LOCKSTEP, simulate, workload

A, B, C, D, E = 6e-3, 70e-6, 20e-6, 30e-9, 10e-9
COMMON, PER_TOKEN = 20e-3, 50e-6
STEP_TIME = StepTime(
    fixed_s=A,
    prefill_s_per_token=B,
    decode_s_per_seq=C,
    kv_s_per_token=D,
    attention_s_per_pair=E,
    common_fixed_s=COMMON,
    common_s_per_token=PER_TOKEN,
)


def prefill_s(tokens: int, context: int = 0) -> float:
    """A rank's own seconds for one chunk; each token attends to what is before it."""
    return A + B * tokens + E * (tokens * context + tokens * tokens / 2)


def decode_s(*contexts: int) -> float:
    """A rank's own seconds for a token of each sequence, whose contexts include that token."""
    return A + C * len(contexts) + D * sum(contexts)


def common_s(tokens: int, ranks: int = 1) -> float:
    return COMMON + PER_TOKEN * tokens / ranks


@pytest.mark.parametrize(
    ("kind", "ranks", "sharing"), [(LOCKSTEP, 4, 4), (INDEPENDENT, 4, 1), (INDEPENDENT, 1, 1)]
)
def test_one_request(kind: GroupKind, ranks: int, sharing: int) -> None:
    run = simulate(workload([(3.0, 5000, 4)]), STEP_TIME, kind=kind, ranks=ranks)

    first_s = (
        (prefill_s(2048, 0) + common_s(2048, sharing))
        + (prefill_s(2048, 2048) + common_s(2048, sharing))
        + (prefill_s(904, 4096) + common_s(904, sharing))
    )
    rest_s = sum(decode_s(5000 + k) + common_s(1, sharing) for k in (1, 2, 3))
    (row,) = run.requests
    assert row["first_token_s"] == pytest.approx(3.0 + first_s, rel=1e-9)
    assert row["finish_s"] == pytest.approx(3.0 + first_s + rest_s, rel=1e-9)
    assert row["outcome"] == Outcome.finished
    assert row["output_tokens"] == 4
    assert row["cached_tokens"] == 0


@pytest.mark.parametrize("penalty_s", [0.0, 0.3])
def test_two_requests_in_one_batch(penalty_s: float) -> None:
    step_time = replace(STEP_TIME, mixed_penalty_s=penalty_s)
    run = simulate(workload([(0.0, 100, 3), (0.001, 50, 2)]), step_time)

    one_s = prefill_s(100) + common_s(100)
    two_s = prefill_s(50) + C + D * 101 + common_s(51) + penalty_s
    three_s = decode_s(102, 51) + common_s(2)
    ends = np.cumsum([one_s, two_s, three_s])
    np.testing.assert_allclose(run.steps["end_s"], ends, rtol=1e-9)
    np.testing.assert_allclose(run.requests["first_token_s"], ends[:2], rtol=1e-9)
    np.testing.assert_allclose(run.requests["finish_s"], ends[[2, 2]], rtol=1e-9)


@pytest.mark.parametrize(
    ("prompt", "hash_block_tokens", "hashes", "cached"),
    [
        (100, 16, 6, 96),
        (96, 16, 6, 80),  # a hit of everything would leave no token to compute
        (97, 16, 6, 96),
        (100, 16, 3, 48),
        (15, 16, 0, 0),
        (1300, 512, 2, 1024),
        (1024, 512, 2, 1008),  # hits are whole KV blocks, not whole hashes
        (1300, 512, 3, 1296),
    ],
)
def test_a_prefix_hit_computes_the_rest(
    prompt: int, hash_block_tokens: int, hashes: int, cached: int
) -> None:
    keys = [[11, 12, 13, 14, 15, 16][:hashes]] * 2
    rows = [(0.0, prompt, 1), (10.0, prompt, 2)]
    requests = workload(rows, hashes=keys, hash_block_tokens=hash_block_tokens)
    run = simulate(requests, STEP_TIME)

    rest = prompt - cached
    first, again = run.requests
    assert first["cached_tokens"] == 0
    assert again["cached_tokens"] == cached
    assert run.ttft_s[0] == pytest.approx(prefill_s(prompt) + common_s(prompt), rel=1e-9)
    assert run.ttft_s[1] == pytest.approx(prefill_s(rest, cached) + common_s(rest), rel=1e-9)
    assert run.e2e_s[1] - run.ttft_s[1] == pytest.approx(decode_s(prompt + 1) + common_s(1))


def test_no_prefix_is_shared_between_ranks_or_without_the_cache() -> None:
    rows = [(0.0, 100, 1), (10.0, 100, 1)]
    keys = [[1, 2, 3, 4, 5, 6]] * 2
    elsewhere = simulate(workload(rows, hashes=keys, pinned=[0, 1]), STEP_TIME, ranks=2)
    off = simulate(workload(rows, hashes=keys), STEP_TIME, engine=Simulator(prefix_cache=False))
    for run in (elsewhere, off):
        assert run.requests["cached_tokens"].tolist() == [0, 0]
        np.testing.assert_allclose(run.ttft_s, prefill_s(100) + common_s(100), rtol=1e-9)


def test_a_lockstep_step_lasts_as_long_as_its_slowest_rank() -> None:
    rows = [(0.0, 10, 1), (0.001, 1000, 1), (0.002, 200, 2)]
    run = simulate(workload(rows, pinned=[0, 0, 1]), STEP_TIME, kind=LOCKSTEP, ranks=2)

    one_s = prefill_s(10) + common_s(10, ranks=2)
    two_s = prefill_s(1000) + common_s(1200, ranks=2)
    three_s = decode_s(201) + common_s(1, ranks=2)
    ends = np.cumsum([one_s, two_s, three_s])
    np.testing.assert_allclose(run.requests["first_token_s"], ends[[0, 1, 1]], rtol=1e-9)
    np.testing.assert_allclose(run.requests["finish_s"], ends[[0, 1, 2]], rtol=1e-9)

    local_s = [[prefill_s(10), 0], [prefill_s(1000), prefill_s(200)], [0, decode_s(201)]]
    np.testing.assert_allclose(run.steps["local_s"].reshape(3, 2), local_s, rtol=1e-9)
    slowest_s = prefill_s(10) + prefill_s(1000) + decode_s(201)
    mean_s = (prefill_s(10) + prefill_s(1000) + prefill_s(200) + decode_s(201)) / 2
    assert straggler_share(run.records) == pytest.approx(1 - mean_s / slowest_s, rel=1e-9)


def test_independent_ranks_do_not_wait_for_each_other() -> None:
    rows = [(0.0, 1000, 1), (0.002, 200, 1)]
    run = simulate(workload(rows, pinned=[0, 1]), STEP_TIME, ranks=2)
    assert run.ttft_s[0] == pytest.approx(prefill_s(1000) + common_s(1000), rel=1e-9)
    assert run.ttft_s[1] == pytest.approx(prefill_s(200) + common_s(200), rel=1e-9)
    assert straggler_share(run.records) == 0


def test_the_mixed_penalty_counts_all_ranks_of_a_lockstep_group() -> None:
    step_time = replace(STEP_TIME, mixed_penalty_s=0.5)
    # step 1 and 2 only prefill; in step 3 rank 1 prefills while rank 0 decodes
    rows = [(0.0, 10, 2), (0.001, 3000, 1)]
    requests = workload(rows, pinned=[0, 1])
    together = simulate(requests, step_time, kind=LOCKSTEP, ranks=2)
    apart = simulate(requests, step_time, kind=INDEPENDENT, ranks=2)

    lengths_s = np.diff(np.unique([0.0, *together.steps["end_s"]]))
    one_s = prefill_s(10) + common_s(10, ranks=2)
    two_s = prefill_s(2048) + common_s(2049, ranks=2) + 0.5
    three_s = prefill_s(952, 2048) + common_s(952, ranks=2)
    np.testing.assert_allclose(lengths_s, [one_s, two_s, three_s], rtol=1e-9)
    expected_s = prefill_s(2048) + common_s(2048) + prefill_s(952, 2048) + common_s(952)
    assert apart.ttft_s[1] == pytest.approx(expected_s, rel=1e-9)


def test_padding_makes_every_rank_as_large_as_the_largest() -> None:
    step_time = replace(STEP_TIME, pad_to_largest=True)
    rows = [(0.0, 10, 1), (0.001, 1000, 1), (0.002, 200, 1)]
    run = simulate(workload(rows, pinned=[0, 0, 1]), step_time, kind=LOCKSTEP, ranks=2)
    one_s = prefill_s(10) + COMMON + PER_TOKEN * 10
    two_s = prefill_s(1000) + COMMON + PER_TOKEN * 1000
    np.testing.assert_allclose(np.unique(run.steps["end_s"]), [one_s, one_s + two_s], rtol=1e-9)


def test_the_pooled_machine_is_one_rank_with_all_the_ranks_have() -> None:
    engine = Simulator(max_num_batched_tokens=1000, max_num_seqs=1, kv_capacity_tokens=2048)
    requests = workload([(0.0, 4000, 2), (0.001, 10, 1), (0.002, 20, 1), (0.003, 30, 1)])
    records = run_pooled(requests, engine, STEP_TIME, ranks=4, seed=0)

    one_s = A + (B * 4000 + E * 4000**2 / 2) / 4 + COMMON + PER_TOKEN * 4000 / 4
    two_s = A + (B * 60 + E * (10**2 + 20**2 + 30**2) / 2 + C + D * 4001) / 4
    two_s += COMMON + PER_TOKEN * 61 / 4
    ends = np.cumsum([one_s, two_s])
    np.testing.assert_allclose(records.steps["end_s"], ends, rtol=1e-9)
    np.testing.assert_allclose(records.requests["finish_s"], ends[[1, 1, 1, 1]], rtol=1e-9)


def test_the_pooled_machine_saturates_at_the_ranks_added_up() -> None:
    """With nothing but prefill to pay for, a load of 1 is a token every ``b / ranks`` seconds."""
    step_time = StepTime(prefill_s_per_token=1e-4)
    requests = workload([(float(k), 500, 1) for k in range(40)])
    rate = saturation_rate(requests, Simulator(), step_time, ranks=4)
    assert rate == pytest.approx(4 / (500 * 1e-4), rel=1e-9)


def test_a_profile_that_costs_nothing_has_no_load() -> None:
    requests = workload([(float(k), 500, 1) for k in range(3)])
    with pytest.raises(WorkloadError, match="costs nothing, so no load can be set; give workload"):
        saturation_rate(requests, Simulator(), StepTime(), ranks=4)
