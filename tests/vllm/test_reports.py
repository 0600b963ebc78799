"""A rank's report after each step says what a count over all its requests says."""

from __future__ import annotations

import time
from random import Random
from typing import Any

import pytest

from dpbal.backends.vllm.acknowledgement import Dispatched, attach
from tests.vllm.engine import Engine, MakeEngine
from tests.vllm.reports import Watched, counted, differences

PREFIXES = [[9] * 40, [10] * 100]
"""What prompts may begin with, so that there is something in the prefix cache."""

RECOUNT_STEPS = "dpbal.backends.vllm.rank.counting.RECOUNT_STEPS"

both_schedulers = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


class Lookups:
    """Records what steps with tokens have looked up in the prefix cache."""

    def __init__(self) -> None:
        self.tokens = 0

    def step(
        self,
        scheduled: Any,
        given: Any,
        report: Any,
        preemptions: int,
        is_alone: bool,
        lookups: tuple[int, int],
    ) -> None:
        if scheduled.total_num_scheduled_tokens:
            self.tokens += lookups[0]

    def close(self) -> None:
        pass


@both_schedulers
def test_all_that_is_looked_up_is_recorded(make_engine: MakeEngine, is_async: bool) -> None:
    engine, random, looked_up = make_engine(is_async=is_async), Random(1), 0
    recorder: Any = Lookups()
    engine.scheduler._start_reporting(engine.scheduler._publisher, recorder)
    for turn in range(400):
        if random.random() < 0.1:
            own = [random.randrange(20, 30_000) for _ in range(random.randint(20, 59))]
            engine.add(str(turn), own, max_tokens=2)
            looked_up += len(own)
        engine.step()
    engine.drain()
    assert recorder.tokens == looked_up > 0


def prompt(random: Random) -> list[int]:
    longest = random.choice([1, 20, 60, 60, 200])
    own = [random.randrange(20, 30_000) for _ in range(random.randint(1, longest))]
    return [*random.choice([[], [], [], [], *PREFIXES]), *own]


def drive(engine: Engine, watched: Watched, random: Random, turns: int) -> None:
    """Do whatever may happen to an engine, and compare each of its reports."""
    scheduler = engine.scheduler
    start_s = time.time() - 10_000
    expected: dict[str, int] = {}
    for turn in range(turns):
        if random.random() < 0.2:
            for number in range(random.randint(1, 3)):
                name = f"{turn}.{number}"
                expected[name] = random.choice(
                    [0, 0, 16, 48, 320]
                )  # the last is more than some are
                dispatched = Dispatched(0, 1, len(expected), expected[name])
                engine.add(
                    name,
                    prompt(random),
                    headers=attach(None, dispatched),
                    max_tokens=random.choice([1, 3, 150, 150]),
                    priority=random.randint(0, 2),
                    arrival_s=start_s + 5 * turn + number,
                )
        if random.random() < 0.03:
            engine.abort(*random.sample(sorted(scheduler.requests), len(scheduler.requests) // 3))
        if random.random() < 0.01:
            scheduler.reset_prefix_cache(reset_running_requests=True)
        known = sorted(scheduler.requests)
        aborted = random.sample(known, min(len(known), 2)) if random.random() < 0.05 else []
        if engine.step(*aborted, "unknown"):
            expectation = counted(scheduler, expected=expected)
            assert differences(watched.report(), expectation) == {}, f"turn {turn}"
    while scheduler.requests:
        if engine.step():
            assert differences(watched.report(), counted(scheduler, expected=expected)) == {}
    engine.drain()
    assert differences(watched.report(), NOTHING) == {}


NOTHING = dict.fromkeys(
    [
        *("running", "waiting", "holding_tokens", "waiting_tokens", "kv_used_tokens"),
        *("prefill_tokens", "prefill_s", "decode_seqs", "decode_s", "oldest_wait_s"),
    ],
    0.0,
)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize("speculates", [False, True], ids=["", "speculates"])
@both_schedulers
def test_reports_are_what_a_count_over_all_requests_gives(
    make_engine: MakeEngine,
    watched: Watched,
    monkeypatch: pytest.MonkeyPatch,
    is_async: bool,
    speculates: bool,
    policy: str,
    seed: int,
) -> None:
    from vllm.v1.engine import FinishReason

    monkeypatch.setattr(RECOUNT_STEPS, 50)
    engine = make_engine(
        is_async=is_async, policy=policy, speculates=speculates, kv_blocks=33, seed=seed
    )
    drive(engine, watched, Random(seed), turns=400)
    assert engine.scheduler.recounted == 0
    reasons = {output.finish_reason for output in engine.outputs}
    assert reasons >= {FinishReason.STOP, FinishReason.LENGTH}
    assert any(o.prefill_stats and o.prefill_stats.num_cached_tokens for o in engine.outputs)
    if speculates:
        assert any(len(output.new_token_ids) > 1 for output in engine.outputs)


def test_a_running_count_that_went_wrong_is_mended(
    make_engine: MakeEngine, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RECOUNT_STEPS, 5)
    engine = make_engine()
    engine.add("1", [20] * 300, max_tokens=2, stops=False)
    engine.scheduler._tally.generate(7)
    for _ in range(4):
        engine.step()
    assert watched.report()["holding_tokens"] == 307
    engine.step()
    assert watched.report()["holding_tokens"] == 301
    assert engine.scheduler.recounted == 1


@both_schedulers
def test_tokens_that_come_for_a_preempted_request_are_reported(
    make_engine: MakeEngine, watched: Watched, is_async: bool
) -> None:
    engine = make_engine(is_async=is_async, kv_blocks=32)
    for number in range(4):  # all fit at first, and grow beyond the cache
        engine.add(str(number), [20 + number] * 110, max_tokens=100, stops=False)
    while engine.scheduler.requests:
        if engine.step():
            assert differences(watched.report(), counted(engine.scheduler)) == {}
    assert sum(request.num_preemptions for request in engine.requests) > 0


@both_schedulers
def test_a_session_that_gets_its_prompt_in_parts_is_reported(
    make_engine: MakeEngine, watched: Watched, is_async: bool
) -> None:
    engine = make_engine(is_async=is_async)
    random = Random(1)
    for number in range(3):
        engine.add(f"other {number}", prompt(random), max_tokens=60)
    engine.add("session", [20] * 30, max_tokens=4, resumable=True)
    for turn in range(60):
        if turn in (1, 2, 25):  # twice before it has stopped, and once after
            engine.add("session", [21 + turn] * 25, max_tokens=4, resumable=True)
        if engine.step():
            assert differences(watched.report(), counted(engine.scheduler)) == {}, turn
    engine.abort("session")
    engine.drain()
    assert differences(watched.report(), NOTHING) == {}


def test_a_request_that_fails_inside_a_step_is_reported(
    make_engine: MakeEngine, watched: Watched
) -> None:
    engine = make_engine()
    for number in range(3):
        engine.add(str(number), [20 + number] * 30, max_tokens=50, stops=False)
    for turn in range(10):
        if turn == 4:
            engine.scheduler.grammar_compile_error_reqs.add("1")
        engine.step()
        assert differences(watched.report(), counted(engine.scheduler)) == {}, turn
    assert set(engine.scheduler.requests) == {"0", "2"}


def test_a_request_that_is_known_is_not_counted_twice(
    make_engine: MakeEngine, watched: Watched
) -> None:
    engine = make_engine()
    engine.add("1", [20] * 30, max_tokens=50, stops=False)
    with pytest.raises(AssertionError, match="duplicate request id"):
        engine.add("1", [20] * 30, max_tokens=50, stops=False)
    engine.step()
    assert differences(watched.report(), counted(engine.scheduler)) == {}


@both_schedulers
def test_what_an_abort_frees_is_reported_though_nothing_else_is_left(
    make_engine: MakeEngine, watched: Watched, is_async: bool
) -> None:
    engine = make_engine(is_async=is_async)
    engine.add("1", [20] * 30, max_tokens=50, stops=False)
    for _ in range(4):
        engine.step()
    assert watched.report()["holding_tokens"] > 30
    engine.abort("1")
    engine.drain()
    assert differences(watched.report(), NOTHING) == {}


def test_a_report_says_that_a_rank_serves_from_its_start_to_its_end(
    make_engine: MakeEngine, watched: Watched
) -> None:
    assert watched.report()["version"] == 0
    engine = make_engine(kv_blocks=40)
    report = watched.report()
    assert report["version"] == 1
    assert report["kv_capacity_tokens"] == 640
    assert watched.table.selectable.tolist() == [True, False]
    engine.close()
    watched.report()
    assert watched.table.selectable.tolist() == [False, True]
