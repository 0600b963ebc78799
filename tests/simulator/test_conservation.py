"""Whatever is run, nothing is lost, done twice, or held beyond what there is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from dpbal.backends.base import Outcome
from dpbal.backends.simulator.layout import NONE, State
from dpbal.backends.simulator.simulator import Simulator
from dpbal.balancers import Balancer, LeastLoad, PowerOfTwo, RoundRobin, TotalTokens, Vllm
from dpbal.budgets import Aligned, Budget, Fixed, Interval
from dpbal.modes import GroupKind, LedgerMode
from dpbal.step_time import StepTime
from dpbal.transports import Delayed, Local, Transport
from dpbal.workloads import Requests
from tests.simulator.runs import Guess, Run, simulate, workload

STEP_TIME = StepTime(
    fixed_s=6e-3,
    prefill_s_per_token=70e-6,
    decode_s_per_seq=200e-6,
    kv_s_per_token=3e-6,
    attention_s_per_pair=1e-6,
    common_fixed_s=2e-3,
    common_s_per_token=7e-6,
)
BLOCK = 4

BALANCERS: list[Callable[[], Balancer]] = [RoundRobin, LeastLoad, PowerOfTwo, TotalTokens, Vllm]
BUDGETS: list[Callable[[], Budget]] = [
    Fixed,
    lambda: Interval(3),
    lambda: Aligned(timeout_iters=4, batching_wait_iters=2),
]
TRANSPORTS: list[Transport] = [
    Local(),
    Delayed(interval_steps=5),
    Delayed(interval_s=0.05),
    Delayed(delay_s=0.03, jitter_s=0.02),
    Delayed(interval_steps=4, publish_on_prefill=True, interval_s=0.02, delay_s=0.01, loss=0.5),
]


class Case(NamedTuple):
    """A workload and everything it runs on."""

    requests: Requests
    kind: GroupKind
    ranks: int
    dispatchers: int
    engine: Simulator
    balancer: Callable[[], Balancer]
    mode: LedgerMode
    transport: Transport
    budget: Callable[[], Budget]

    def run(self) -> Run:
        return simulate(
            self.requests,
            STEP_TIME,
            kind=self.kind,
            ranks=self.ranks,
            dispatchers=self.dispatchers,
            engine=self.engine,
            balancer=self.balancer,
            mode=self.mode,
            transport=self.transport,
            budget=self.budget(),
            indexer=lambda: Guess(lambda request: int(request.id) % 3),
        )


@st.composite
def workloads(draw: st.DrawFn) -> Requests:
    """Bursts of requests, whose prompts begin alike where they have hashes."""
    sizes = st.tuples(
        st.sampled_from([0, 0, 1, 7, 30]), st.integers(1, 70), st.integers(1, 50), st.integers(0, 2)
    )
    drawn = draw(st.lists(sizes, min_size=1, max_size=30))
    arrivals = accumulate(gap for gap, *_ in drawn)
    rows = [
        (at * 0.00137, prompt, output)
        for at, (_, prompt, output, _) in zip(arrivals, drawn, strict=True)
    ]
    if not draw(st.booleans()):
        return workload(rows)
    numbers: dict[tuple[int, ...], int] = {}
    hashes = []
    for own, (_, prompt, _, family) in enumerate(drawn):
        common = 6 + family  # blocks that all prompts of a family begin with
        chain = [family if k < common else 100 + own % 3 for k in range(prompt // BLOCK)]
        prefixes = [tuple(chain[: k + 1]) for k in range(len(chain))]
        hashes.append([numbers.setdefault(prefix, len(numbers)) for prefix in prefixes])
    return workload(rows, hashes=hashes, hash_block_tokens=BLOCK)


CASES = st.builds(
    Case,
    requests=workloads(),
    kind=st.sampled_from(GroupKind),
    ranks=st.integers(1, 3),
    dispatchers=st.integers(1, 2),
    engine=st.builds(
        Simulator,
        max_num_batched_tokens=st.sampled_from([8, 33, 2048]),
        max_num_seqs=st.sampled_from([1, 4, 64]),
        block_size=st.just(BLOCK),
        kv_capacity_tokens=st.integers(64, 160),
    ),
    balancer=st.sampled_from(BALANCERS),
    mode=st.sampled_from(LedgerMode),
    transport=st.sampled_from(TRANSPORTS),
    budget=st.sampled_from(BUDGETS),
)


@settings(max_examples=250, derandomize=True)
@given(CASES)
def test_nothing_is_lost_or_done_twice(case: Case) -> None:
    run = case.run()
    rows, steps = run.requests, run.steps
    finished = rows[rows["outcome"] == Outcome.finished]
    failed = rows[rows["outcome"] == Outcome.failed]
    preempts = bool(rows["preemptions"].any())
    event(f"preemptions: {preempts}, hits: {bool(rows['cached_tokens'].any())}")

    # every request ends once, as it was asked
    assert len(rows) == len(finished) + len(failed) == len(case.requests)
    wanted = case.requests.output_tokens[rows["outcome"] == Outcome.finished]
    assert finished["output_tokens"].tolist() == wanted.tolist()
    assert not failed["output_tokens"].any()
    blocks = (case.engine.kv_capacity_tokens or 0) // BLOCK
    needed = -(-(case.requests.prompt_tokens + case.requests.output_tokens - 1) // BLOCK)
    assert (rows["outcome"] == Outcome.failed).tolist() == (needed > blocks).tolist()
    assert (finished["arrival_s"] < finished["first_token_s"]).all()
    assert (finished["first_token_s"] <= finished["finish_s"]).all()

    # every token is prefilled and decoded once, but for what a preemption threw away
    to_prefill = int((finished["prompt_tokens"] - finished["cached_tokens"]).sum())
    to_decode = int((finished["output_tokens"] - 1).sum())
    assert steps["preemptions"].sum() == rows["preemptions"].sum()
    if preempts:
        assert steps["prefill_tokens"].sum() >= to_prefill
        again = to_decode - steps["decode_seqs"].sum()  # tokens that ended a recomputation
        assert 0 <= again <= rows["preemptions"].sum()
    else:
        assert steps["prefill_tokens"].sum() == to_prefill
        assert steps["decode_seqs"].sum() == to_decode
    assert (finished["cached_tokens"] % BLOCK == 0).all()
    assert (finished["cached_tokens"] < finished["prompt_tokens"]).all()

    # every gap between two tokens is in the records once
    gaps_s = run.records.late_gaps_s
    assert steps["next_tokens"].sum() + len(gaps_s) == to_decode
    in_step_s = (steps["next_tokens"] * (steps["end_s"] - steps["start_s"])).sum()
    spans_s = (finished["finish_s"] - finished["first_token_s"]).sum()
    np.testing.assert_allclose(in_step_s + gaps_s.sum(), spans_s, rtol=1e-9, atol=1e-12)


@settings(max_examples=250, derandomize=True)
@given(CASES)
def test_nothing_is_held_beyond_what_there_is(case: Case) -> None:
    run = case.run()
    steps, engine = run.steps, case.engine
    capacity = (engine.kv_capacity_tokens or 0) // BLOCK * BLOCK
    assert (steps["kv_used_tokens"] >= 0).all()
    assert (steps["kv_used_tokens"] <= capacity).all()
    assert (steps["running"] <= engine.max_num_seqs).all()
    assert (steps["decode_seqs"] <= engine.max_num_seqs).all()
    tokens = steps["prefill_tokens"] + steps["decode_seqs"]
    assert (tokens <= engine.max_num_batched_tokens).all()

    for r in range(case.ranks):
        own = steps[steps["rank"] == r]
        assert (own["end_s"] > own["start_s"]).all()
        assert (own["start_s"][1:] >= own["end_s"][:-1]).all()
    if case.kind is GroupKind.lockstep:
        for field in ("start_s", "end_s"):
            together = steps[field].reshape(-1, case.ranks)
            assert (together == together[:, :1]).all()

    for r in range(case.ranks):
        own = run.requests[run.requests["rank"] == r]
        own = own[own["outcome"] == Outcome.finished]
        if not own["preemptions"].any():  # first come first served
            assert (np.diff(own["first_token_s"]) >= 0).all()


@settings(max_examples=200, derandomize=True)
@given(CASES)
def test_nothing_is_left_when_all_have_ended(case: Case) -> None:
    run = case.run()
    for dispatcher in run.parts.dispatchers:
        assert not dispatcher.ledger.outstanding.any()
        assert not any(totals.any() for totals in dispatcher.ledger.in_flight)
        assert dispatcher.ledger.unknown_releases == 0
    for field in (
        "running",
        "waiting",
        "holding_tokens",
        "waiting_tokens",
        "prefill_tokens",
        "prefill_squares",
        "decode_seqs",
        "decode_kv_tokens",
    ):
        assert not run.state.ranks[field].any(), field
    blocks = int(run.state.spec["blocks"][0])
    assert (run.state.ranks["free_blocks"] == blocks).all()
    if run.state.spec["caching"][0]:
        for r in range(case.ranks):
            check_cache(run.state, r, blocks)


def check_cache(state: State, rank: int, blocks: int) -> None:
    """All blocks are in one chain both ways, unused, and those with a key are in the table."""
    chain = state.blocks[rank]
    at, visited = chain[blocks]["next"], []
    while at != blocks:
        visited.append(at)
        assert chain[chain[at]["next"]]["previous"] == at
        assert chain[at]["references"] == 0
        at = chain[at]["next"]
    assert sorted(visited) == list(range(blocks))
    filled = state.cached_keys[rank] != NONE
    known = dict(
        zip(
            state.cached_keys[rank][filled].tolist(),
            state.cached_blocks[rank][filled].tolist(),
            strict=True,
        )
    )
    assert known == {chain[b]["key"]: b for b in range(blocks) if chain[b]["key"] >= 0}


@settings(max_examples=50, derandomize=True)
@given(CASES)
def test_the_same_seed_gives_the_same_records(case: Case) -> None:
    first, second = case.run().records, case.run().records
    assert first.requests.tobytes() == second.requests.tobytes()
    assert first.steps.tobytes() == second.steps.tobytes()
    assert first.late_gaps_s.tobytes() == second.late_gaps_s.tobytes()
