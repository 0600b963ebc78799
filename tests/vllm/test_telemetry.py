"""What ranks count for an operator: their steps' seconds, compared in a lockstep group."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from dpbal.backends.vllm.emulated.batch import Batch
from dpbal.backends.vllm.metrics.telemetry import RING, GroupWords, RankTelemetry, Telemetry
from tests.vllm.engine import COSTS, Engine, MakeEngine


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """The lines of three ranks."""
    made = Telemetry.create(3)
    yield made
    made.close()


def compared(telemetry: Telemetry) -> GroupWords:
    words = telemetry.read(0)
    assert words is not None
    assert words.group is not None
    return words.group


def test_a_rank_that_is_not_here_has_nothing_to_say(telemetry: Telemetry) -> None:
    RankTelemetry(telemetry, 2)
    assert [telemetry.read(rank) is None for rank in range(3)] == [True, True, False]


@pytest.mark.parametrize("lag", [1, 2])
def test_the_ranks_of_a_group_are_compared_step_by_step(telemetry: Telemetry, lag: int) -> None:
    ranks = [RankTelemetry(telemetry, rank, rank == 0, lag) for rank in range(3)]
    random, mean_s, longest_s, steps = Random(lag), 0.0, 0.0, 0
    for wave in range(5):
        for step in range(random.randint(1, 3 * RING)):
            given = [random.choice([0.0, random.random()]) for _ in ranks]
            # a rank may be ahead of another by the steps under way
            for rank, local_s in sorted(
                zip(ranks, given, strict=True), key=lambda _: random.random()
            ):
                rank.begin(wave, step)
                if local_s:
                    rank.give(local_s)
            mean_s += sum(given) / 3
            longest_s += max(given)
            steps += any(given)
        for rank in ranks:
            rank.rest()
    found = compared(telemetry)
    assert (found.steps, found.skipped) == (steps, 0)
    assert (found.mean_s, found.longest_s) == pytest.approx((mean_s, longest_s))


def test_a_step_that_a_rank_does_not_come_to_is_skipped(telemetry: Telemetry) -> None:
    first, second, third = (RankTelemetry(telemetry, rank, rank == 0) for rank in range(3))
    for step in range(4):
        for rank in (first, second, *([third] if step != 1 else [])):
            rank.begin(7, step)
            rank.give(1.0)
    first.rest()
    first.rest()  # which counts nothing twice
    assert compared(telemetry) == (3, 1, 3.0, 3.0)


def test_a_turn_that_had_no_step_is_not_one_more(telemetry: Telemetry) -> None:
    ranks = [RankTelemetry(telemetry, rank, rank == 0) for rank in range(3)]
    for _ in range(3):  # all that it had was aborted
        ranks[0].begin(0, 0)
    for rank in ranks[1:]:
        rank.begin(0, 0)
    ranks[1].give(3.0)
    ranks[0].begin(0, 1)
    assert compared(telemetry) == (1, 0, 1.0, 3.0)


def given_by_hand(engine: Engine) -> list[float]:
    """Seconds of each step with tokens from here on, counted over all that it holds."""
    batch, seconds = Batch(), []
    scheduler: Any = engine.scheduler
    schedule = scheduler.schedule

    def schedule_and_count(*args: Any) -> Any:
        output = schedule(*args)
        if output.total_num_scheduled_tokens:
            work, _ = batch.take(output)
            seconds.append(COSTS.local_s(*work))
        else:
            batch.forget(output.finished_req_ids)
        return output

    scheduler.schedule = schedule_and_count
    return seconds


@pytest.mark.parametrize(
    ("is_async", "kv_blocks", "budget"),
    [
        (False, 64, None),
        (True, 64, None),
        (False, 14, None),  # requests are preempted, and come back
        (False, 64, {"name": "interval", "interval_steps": 2}),
    ],
)
def test_the_seconds_of_steps_are_those_of_what_they_hold(
    make_engine: MakeEngine,
    telemetry: Telemetry,
    is_async: bool,
    kv_blocks: int,
    budget: dict[str, Any] | None,
) -> None:
    engine = make_engine(is_async=is_async, kv_blocks=kv_blocks, budget=budget)
    engine.scheduler._start_telling(RankTelemetry(telemetry, 0))
    by_hand, random = given_by_hand(engine), Random(3)
    for turn in range(300):
        if random.random() < 0.25:
            tokens = [random.randrange(20, 30_000) for _ in range(random.randint(5, 150))]
            engine.add(str(turn), [9] * 40 + tokens, max_tokens=random.randint(1, 20), stops=False)
        engine.step()
    engine.drain()
    words = telemetry.read(0)
    assert words is not None
    preempted = sum(request.num_preemptions for request in engine.requests)
    assert (preempted > 0) == (kv_blocks == 14)
    assert words.steps == len(by_hand) > 100
    # of decodes that are left out of a step the mean context is taken
    is_exact = not is_async and not preempted
    assert words.local_s == pytest.approx(sum(by_hand), rel=1e-9 if is_exact else 1e-3)
    if budget is not None:
        assert words.budget is not None
        assert (words.budget.steps, words.budget.alone_steps) == (engine.turns, 0)
