"""An engine tells the other ranks what it has, and its steps hold what the budget allows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from random import Random
from threading import Thread
from typing import Any

import pytest

from dpbal.backends.vllm.acknowledgement import Dispatched, attach
from dpbal.backends.vllm.emulated.barrier import Barrier, LockstepDevice
from dpbal.backends.vllm.emulated.batch import Work
from dpbal.backends.vllm.emulated.device import Ticket
from dpbal.backends.vllm.rank.pacing import Pacing
from dpbal.core import VECTOR
from dpbal.step_time import StepTime
from dpbal.transports import Shm
from dpbal.transports.base import Vectors
from tests.vllm.engine import BLOCK, COSTS, STEP_S, Engine, MakeEngine
from tests.vllm.reports import Watched, differences, expected_in_cache
from tests.vllm.test_reports import prompt

BUSY = {"decode_s": 0.05, "decode_seqs": 10}
"""Another rank that decodes, and has nothing to prefill."""

AGREED = {"name": "aligned"}
"""A budget that needs the vectors of all ranks."""

both_schedulers = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@pytest.fixture
def peer(watched: Watched) -> Iterator[Vectors]:
    """The other rank's end for vectors."""
    end = Shm().vectors(watched.exchange.address, 1)
    yield end
    end.close()


def pacing_of(engine: Engine) -> Pacing:
    found = engine.scheduler._pacing
    assert found is not None
    return found


def told(engine: Engine) -> dict[str, Any]:
    """What the engine tells of itself."""
    own = pacing_of(engine).own
    return {name: own[name].item() for name in VECTOR.names or ()}


def counted(scheduler: Any, hits: Mapping[str, int]) -> dict[str, float]:
    """What a vector must say, counted over all requests in the order of admission."""
    now_s = time.time()
    prefilling = [r for r in scheduler.running if r.is_prefill_chunk]
    decoding = [r for r in scheduler.running if not r.is_prefill_chunk]
    free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    waiting: list[Any] = []
    for request in scheduler.waiting:
        free -= -(-request.num_tokens // BLOCK)
        if free < 0 or len(scheduler.running) + len(waiting) == scheduler.max_num_running_reqs:
            break
        waiting.append(request)
    left = [(expected_in_cache(r, hits), r.num_tokens) for r in waiting]
    left += [(r.num_computed_tokens, r.num_tokens) for r in prefilling]
    seconds = [COSTS.prefill_s(size - computed, computed) for computed, size in left]
    tokenless = [r.arrival_time for r in waiting + prefilling if not r.num_output_tokens]
    everyone = [*prefilling, *scheduler.waiting]
    oldest = [r.arrival_time for r in everyone if not r.num_output_tokens]
    return {
        "decode_s": COSTS.decode_s(len(decoding), sum(r.num_tokens for r in decoding)),
        "decode_seqs": len(decoding),
        "prefill_s": sum(seconds),
        "prefill_tokens": sum(size - computed for computed, size in left),
        "prefill_requests": len(left),
        "wait_s": sum(now_s - at_s for at_s in tokenless),
        "oldest_wait_s": now_s - min(oldest) if oldest else 0.0,
    }


def steps_of(engine: Engine, peer: Vectors | None = None) -> Iterator[dict[str, int]]:
    """Tokens of each request in every step until nothing is left; ``peer`` is there in time."""
    schedule: Any = engine.scheduler.schedule
    seen: list[dict[str, int]] = []

    def watch(throttle_prefills: bool = False) -> Any:
        output = schedule(throttle_prefills)
        seen.append(dict(output.num_scheduled_tokens))
        return output

    engine.scheduler.schedule = watch  # type: ignore[method-assign]
    while engine.scheduler.has_requests():
        if peer is not None:
            peer.publish(engine.wave, engine.turns)
        engine.step()
        yield seen[-1]


@pytest.mark.parametrize("seed", range(3))
@both_schedulers
def test_a_vector_is_what_a_count_over_all_requests_gives(
    make_engine: MakeEngine, is_async: bool, seed: int
) -> None:
    engine = make_engine(
        is_async=is_async, kv_blocks=33, seed=seed, budget={"name": "time_cap", "step_s": 0.002}
    )
    scheduler, random = engine.scheduler, Random(seed)
    start_s = time.time() - 10_000
    hits: dict[str, int] = {}
    for turn in range(300):
        if random.random() < 0.25:
            for number in range(random.randint(1, 3)):
                name = f"{turn}.{number}"
                hits[name] = random.choice([0, 0, 16, 48])
                engine.add(
                    name,
                    prompt(random),
                    max_tokens=random.choice([1, 3, 150, 150]),
                    headers=attach(None, Dispatched(0, 1, len(hits), hits[name])),
                    arrival_s=start_s + 5 * turn + number,
                )
        if random.random() < 0.03:
            engine.abort(*random.sample(sorted(scheduler.requests), len(scheduler.requests) // 3))
        if random.random() < 0.01:
            scheduler.reset_prefix_cache(reset_running_requests=True)
        expected = counted(scheduler, hits)
        engine.step()
        found = told(engine)
        assert abs(found.pop("wait_s") - expected.pop("wait_s")) < 1.0, f"turn {turn}"
        assert differences(found, expected) == {}, f"turn {turn}"
    assert sum(request.num_preemptions for request in engine.requests) > 0


def test_a_vector_says_what_the_last_step_was_given(make_engine: MakeEngine, peer: Vectors) -> None:
    engine = make_engine(budget={"name": "time_cap", "step_s": 10.0})
    engine.add("1", [20] * 60, max_tokens=3, stops=False)
    engine.step()
    assert told(engine)["step_s"] == told(engine)["done_tokens"] == 0
    engine.step()
    found = told(engine)
    assert (found["step_s"], found["done_tokens"]) == (STEP_S, 60)
    assert found["done_prefill_s"] == pytest.approx(COSTS.prefill_s(60))
    assert found["done_decode_s"] == 0
    engine.step()
    found = told(engine)
    assert (found["done_tokens"], found["done_prefill_s"]) == (1, 0)
    assert found["done_decode_s"] == pytest.approx(COSTS.decode_s(1, 61))
    engine.drain()
    for _ in range(2):  # the group goes on, and this rank sits out
        engine.step()
    assert told(engine)["done_tokens"] == 0


@both_schedulers
def test_a_vector_tells_the_length_of_the_step_whose_work_it_tells(
    make_engine: MakeEngine, is_async: bool
) -> None:
    engine = make_engine(is_async=is_async, budget={"name": "time_cap", "step_s": 10.0})
    lag = 2 if is_async else 1
    for turn in range(30):
        if turn in (3, 4, 15, 20):
            engine.add(str(turn), [20 + turn] * (10 + turn), max_tokens=4, stops=False)
        engine.step()
        found = told(engine)
        of = turn - lag
        expected = (engine.given[of], STEP_S * (1 + of)) if of >= 0 else (0, 0.0)
        assert (found["done_tokens"], found["step_s"]) == expected, turn
    assert 0 in engine.given[5:]
    assert max(engine.given) > 10


@both_schedulers
def test_a_clock_on_the_host_is_believed_only_while_every_turn_waits_for_a_step(
    make_engine: MakeEngine, is_async: bool
) -> None:
    engine = make_engine(is_async=is_async, budget={"name": "time_cap", "step_s": 10.0})
    engine.tells_steps = False
    lag = 2 if is_async else 1
    worked = 0
    believed = set()
    for turn in range(40):
        if turn in (4, 20):
            engine.add(str(turn), [turn] * 50, max_tokens=8, stops=False)
        engine.step()
        found = told(engine)
        assert (found["step_s"] > 0) == (worked > lag), turn
        believed.add(found["step_s"] > 0)
        worked = worked + 1 if engine.given[-1] else 0
    assert believed == {False, True}


def test_ranks_mean_the_same_step_however_far_each_has_waited() -> None:
    costs = StepTime(fixed_s=0.001, prefill_s_per_token=1e-5)
    prefill = [100 * (turn % 4) for turn in range(16)]
    barrier = Barrier.create(2)
    found: list[list[float]] = [[], []]

    def run(rank: int, depth: int) -> None:
        device = LockstepDevice(costs, 1.0, barrier.address, rank)
        under_way: list[Ticket] = []
        for tokens in prefill:
            found[rank].append(device.took_s(2))
            under_way.append(device.submit(Work(prefill_tokens=tokens * (1 - rank), decode_seqs=1)))
            if len(under_way) == depth:
                device.finish(under_way.pop(0))
        for ticket in under_way:
            device.finish(ticket)
        device.close()

    threads = [Thread(target=run, args=(rank, 2 - rank)) for rank in range(2)]  # 1 runs dummies
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    barrier.close()
    took_s = [costs.fixed_s + costs.prefill_s(tokens) for tokens in prefill]
    for rank in range(2):
        assert found[rank][:2] == [0, 0]
        assert found[rank][3:] == pytest.approx(took_s[1:-2])  # the first began when each came


def test_each_chunk_is_what_its_seconds_hold_at_its_context(make_engine: MakeEngine) -> None:
    engine = make_engine(budget={"name": "time_cap", "step_s": 0.0003})
    engine.add("1", [20] * 100, max_tokens=1, stops=False)
    engine.add("2", [21] * 100, max_tokens=1, stops=False)
    contexts = {"1": 0, "2": 0}
    for tokens in steps_of(engine):
        left_s = 0.0003
        for key in tokens:  # in the order of admission
            most = min(100 - contexts[key], COSTS.tokens_within(left_s, contexts[key]))
            assert tokens[key] == most
            left_s -= COSTS.prefill_s(most, contexts[key])
            contexts[key] += most
    assert contexts == {"1": 100, "2": 100}


@both_schedulers
def test_a_prompt_that_gets_nothing_holds_up_no_decode(
    make_engine: MakeEngine, peer: Vectors, is_async: bool
) -> None:
    engine = make_engine(is_async=is_async, budget={"name": "aligned", "timeout_iters": 1000})
    peer.own["decode_seqs"] = 10
    engine.add("short", [20] * 10, max_tokens=40, stops=False)
    for _ in range(4):
        peer.publish(0, engine.turns)
        engine.step()
    engine.add("long", [21] * 200, max_tokens=1, stops=False)
    held = 0
    for tokens in steps_of(engine, peer):
        held += "short" in tokens and "long" not in tokens
        if held == 20:
            break
    assert held == 20
    assert [request.num_preemptions for request in engine.requests] == [0, 0]


@both_schedulers
def test_a_rank_keeps_to_what_all_have_agreed_on(
    make_engine: MakeEngine, peer: Vectors, is_async: bool
) -> None:
    engine = make_engine(is_async=is_async, budget=AGREED)
    pacing = pacing_of(engine)
    lag = 2 if is_async else 1
    for name, value in BUSY.items():
        peer.own[name] = value
    engine.add("1", [20] * 400, max_tokens=1, stops=False)
    for turn in range(6):
        engine.step()
        assert pacing.is_alone == (turn < lag), turn
        peer.publish(0, turn)
    assert pacing.alone_steps == lag


@pytest.mark.usefixtures("peer")
def test_a_rank_whose_peer_is_silent_does_what_is_safe_alone(make_engine: MakeEngine) -> None:
    engine = make_engine(budget={"name": "aligned"})
    pacing = pacing_of(engine)
    engine.add("1", [20] * 300, max_tokens=2, stops=False)
    for tokens in steps_of(engine):
        assert sum(tokens.values()) > 0 or not engine.scheduler.has_unfinished_requests()
    assert pacing.alone_steps == pacing.steps > 5


def test_vectors_of_an_earlier_wave_are_not_those_of_this_one(
    make_engine: MakeEngine, peer: Vectors
) -> None:
    engine = make_engine(budget=AGREED)
    pacing = pacing_of(engine)
    for wave in range(3):
        engine.add(str(wave), [20 + wave] * 300, max_tokens=2, stops=False)
        for turn in range(4):
            engine.step()
            assert pacing.is_alone == (turn == 0), (wave, turn)
            peer.publish(wave, turn)
        engine.drain()
        engine.start_wave()


def test_a_rank_without_work_publishes_all_the_same(
    make_engine: MakeEngine, watched: Watched, peer: Vectors
) -> None:
    engine = make_engine(budget=AGREED)
    vectors = peer.own.repeat(2)
    for turn in range(20):
        engine.step()
        peer.publish(0, turn)
        assert peer.read(0, turn, vectors)
        assert vectors["prefill_requests"].tolist() == [0, 0]


@pytest.mark.parametrize(("room_s", "is_taken"), [(0.0, False), (2.5e-5, True), (1.0, True)])
def test_a_last_token_padded_for_speculation_is_taken_whole_or_not_at_all(
    make_engine: MakeEngine, room_s: float, is_taken: bool
) -> None:
    step_s = COSTS.decode_s(1, 40) + room_s
    engine = make_engine(speculates=True, budget={"name": "time_cap", "step_s": step_s})
    tokens = [20] * 2 * BLOCK + [7]
    engine.add("before", tokens, max_tokens=100, stops=False)
    for _ in range(5):
        engine.step()
    assert engine.outputs
    engine.add("cached", tokens, max_tokens=100, stops=False)
    engine.step()
    computed = engine.scheduler.requests["cached"].num_computed_tokens
    assert (computed > 2 * BLOCK) == is_taken
    engine.step()
    one_s = COSTS.prefill_s(1, 2 * BLOCK) if is_taken else 0.0
    assert told(engine)["done_prefill_s"] == pytest.approx(one_s)


def test_a_speculating_request_is_one_decode(make_engine: MakeEngine) -> None:
    engine = make_engine(speculates=True, budget={"name": "time_cap", "step_s": 10.0})
    for key in ("1", "2"):
        engine.add(key, [20] * 10, max_tokens=60, stops=False)
    engine.step()
    most = 0
    for _ in range(12):
        before = told(engine)
        engine.step()
        found = told(engine)
        if before["decode_seqs"] == 2:
            most = max(most, found["done_tokens"])
            assert found["done_decode_s"] == pytest.approx(before["decode_s"])
    assert most > 2


@pytest.mark.usefixtures("peer")
def test_a_rank_alone_fills_the_time_that_its_budget_holds_to_be_safe(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine(budget={"name": "level", "growth": 0.3})
    engine.add("short", [20] * 30, max_tokens=40, stops=False)
    for _ in range(3):
        engine.step()
    engine.add("long", [21] * 400, max_tokens=1, stops=False)
    context = chunks = 0
    for tokens in steps_of(engine):
        chunk = tokens.get("long", 0)
        if "short" not in tokens or context + chunk == 400:
            break
        alone_s = 0.3 * (COSTS.fixed_s + told(engine)["decode_s"])
        assert chunk == COSTS.tokens_within(alone_s, context) > 0
        context += chunk
        chunks += 1
    assert chunks > 5
