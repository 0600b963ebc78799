"""What front ends are told of ranks' prefix caches is what is in them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dpbal.backends.vllm.front_end.prefixes import Prompt
from dpbal.core import Request
from dpbal.indexers import KvEvents
from dpbal.transports.sockets import Sockets
from tests.vllm.cache_events import stored
from tests.vllm.engine import BLOCK, Engine, MakeEngine
from tests.vllm.settings import FOLLOWING, write

PATIENCE_S = 60.0
PREFIXES = [[9] * 40, [10] * 100, [11] * 64]

MakeTold = Callable[..., "Told"]


class Told:
    """A front end that listens to a rank's scheduler.

    Args:
        engine: The rank, of a group of two.
        sockets: Where they are.
    """

    def __init__(self, engine: Engine, sockets: str) -> None:
        from dpbal.backends.vllm.front_end.kv_events import GroupSubscriber

        self._engine = engine
        self.index = KvEvents()
        self.index.start(2, 100_000)
        self.subscriber = GroupSubscriber(sockets, [self.index], 2)
        self._prompts: list[list[int]] = []
        self._sent = 0

    def close(self) -> None:
        self.subscriber.close()

    def ask(self, tokens: list[int], **more: Any) -> None:
        """Send the rank a prompt, and remember it."""
        self._prompts.append(tokens)
        self._sent += 1
        self._engine.add(f"{id(self)}-{self._sent}", tokens, **{"max_tokens": 3, **more})

    def ask_for_all(self, tokens: list[int]) -> None:
        """Send it one whose client wants to hear of hits too, which vLLM calls a full report."""
        self._prompts.append(tokens)
        self._sent += 1
        asked = self._engine.request(f"{id(self)}-{self._sent}", tokens, max_tokens=1)
        asked.kv_cache_report_mode = "full"
        self._engine.scheduler.add_request(asked)
        self._engine.drain()

    def knows(self) -> bool:
        """Whether the index says of each prompt what the rank's cache says of it."""
        self.subscriber.take_in()
        return all(self.expected(tokens) == self.cached(tokens) for tokens in self._prompts)

    def expected(self, tokens: list[int], **prompt: Any) -> list[int]:
        """Leading blocks of each rank, by the index."""
        hashes = Prompt(len(tokens), tokens, BLOCK, **prompt).block_hashes()
        request = Request("?", 0.0, len(tokens), block_hashes=hashes, block_tokens=BLOCK)
        leading: list[int] = self.index.match(request).tolist()
        return leading

    def cached(self, tokens: list[int], **more: Any) -> list[int]:
        """Leading blocks of each rank, by vLLM."""
        manager = self._engine.scheduler.kv_cache_manager
        asked = self._engine.request("?", [*tokens, 1], max_tokens=1, **more)
        return [manager.get_computed_blocks(asked)[1] // BLOCK, 0]

    def until(self, happens: Callable[[], bool]) -> None:
        """Let the rank work on small prompts, so that it has something to say, until it is so."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not happens():
            assert time.monotonic() < deadline_s
            self.ask([20 + self._sent % 1000] * BLOCK, max_tokens=1)
            self._engine.drain()
            time.sleep(0.005)


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The sockets of a group, whose ranks publish their events."""
    from dpbal.backends.vllm.settings import EVENTS

    made = Sockets.create(tmp_path, "kv")
    monkeypatch.setenv(EVENTS, made.address)
    yield made.address
    made.close()
    assert not Path(made.address).exists()


@pytest.fixture
def make_told(
    make_engine: MakeEngine, watched: object, sockets: str, tmp_path: Path
) -> Iterator[MakeTold]:
    """Makes a front end; with an engine where it is given none."""
    made: list[Told] = []

    def make(engine: Engine | None = None, **more: Any) -> Told:
        if engine is None:
            write(tmp_path / "config.yaml", **FOLLOWING)
            engine = make_engine(has_events=True, **more)
        made.append(Told(engine, sockets))
        return made[-1]

    yield make
    for told in made:
        told.close()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_index_is_what_the_cache_holds(make_told: MakeTold, is_async: bool, seed: int) -> None:
    told = make_told(is_async=is_async, kv_blocks=33, seed=seed)
    engine, random = told._engine, Random(seed)
    for turn in range(150):
        if random.random() < 0.3:
            own = [random.randrange(20, 30_000) for _ in range(random.randint(1, 60))]
            told.ask([*random.choice(PREFIXES), *own], max_tokens=random.choice([1, 60]))
        if random.random() < 0.05 and engine.scheduler.requests:
            engine.abort(random.choice(sorted(engine.scheduler.requests)))
        if turn == 75:
            engine.drain()
            told.until(told.knows)
            assert any(told.expected(prefix)[0] for prefix in PREFIXES)
            assert engine.scheduler.reset_prefix_cache()
            assert told.cached(PREFIXES[0]) == [0, 0]
        engine.step()
    engine.drain()
    told.until(told.knows)
    gone = [tokens for tokens in told._prompts if told.expected(tokens)[0] < len(tokens) // BLOCK]
    assert gone  # the cache is much smaller than all that was asked
    assert told.index.sizes[0] == len(
        engine.scheduler.kv_cache_manager.block_pool.cached_block_hash_to_block
    )
    assert told.index.unknown_removals == told.subscriber.lost == 0


def test_a_front_end_that_comes_later_is_told_all_that_is_there(make_told: MakeTold) -> None:
    first = make_told()
    first.ask([9] * 100)
    first._engine.drain()
    second = make_told(first._engine)
    second.until(lambda: second.knows() and second.expected([9] * 100) == [6, 0])
    first.until(lambda: first.knows() and first.expected([9] * 100) == [6, 0])


def test_a_message_that_is_lost_is_made_up_for(make_told: MakeTold) -> None:
    told = make_told()
    told.ask([9] * 100)
    told.until(lambda: told.knows() and told.expected([9] * 100) == [6, 0])
    told.ask([10] * 100)
    told._engine.drain()
    assert told.subscriber._socket.poll(int(1000 * PATIENCE_S))
    told.subscriber._socket.recv_multipart()  # and nobody reads it
    told.until(lambda: not told.knows() and told.subscriber.lost == 1)
    told.until(lambda: told.knows() and told.expected([10] * 100) == [6, 0])
    assert told.expected([9] * 100) == [6, 0]
    assert told.subscriber.lost == 1


def test_prompts_of_other_clients_share_nothing(make_told: MakeTold) -> None:
    told = make_told()
    told.ask([9] * 100, cache_salt="a")
    told.until(lambda: bool(told.knows() and told.expected([9] * 100, salt="a") == [6, 0]))
    assert told.cached([9] * 100, cache_salt="a") == [6, 0]
    for other in ({}, {"salt": "b"}, {"lora": "a"}):
        assert told.expected([9] * 100, **other) == [0, 0]


@pytest.mark.parametrize("others", [False, True], ids=["dpbal alone", "another listener"])
def test_clients_that_want_to_hear_of_hits_do_not_keep_blocks_that_are_gone(
    make_told: MakeTold, others: bool
) -> None:
    told, random = make_told(kv_blocks=33), Random(0)
    scheduler: Any = told._engine.scheduler
    theirs = Theirs()
    if others:
        scheduler.kv_event_publisher.shutdown()
        scheduler.kv_event_publisher = theirs
        scheduler._start_events(0)
    for _ in range(60):
        prompt = [random.randrange(20, 30_000) for _ in range(97)]
        told.ask_for_all(prompt)
        told.ask_for_all(prompt)
        known = len(scheduler.kv_event_publisher._blocks)
        there = len(scheduler.kv_cache_manager.block_pool.cached_block_hash_to_block)
        assert known <= 34 if others else known == there
    said = [event for batch in theirs.batches for event in batch.events]
    reported = sum(getattr(event, "token_ids", None) == prompt[:96] for event in said)
    assert reported == others  # who is told of hits as before


def test_a_reset_does_not_undo_what_has_happened_since(make_told: MakeTold) -> None:
    told = make_told()
    told.ask([9] * 100)
    told.until(lambda: told.knows() and told.expected([9] * 100) == [6, 0])
    assert told._engine.scheduler.reset_prefix_cache()
    deadline_s = time.monotonic() + PATIENCE_S
    while not told.knows():  # without another step
        assert time.monotonic() < deadline_s
    assert told.expected([9] * 100) == [0, 0]
    told.ask([10] * 100)
    told.until(lambda: told.knows() and told.expected([10] * 100) == [6, 0])
    told.index.cache_reset(0)  # the client's answer, which waits for the slowest rank
    assert (told.expected([9] * 100), told.expected([10] * 100)) == ([0, 0], [6, 0])


def test_nothing_stays_of_a_process_that_another_has_taken_the_place_of(sockets: str) -> None:
    from vllm.distributed.kv_events import KVEventBatch, NullEventPublisher

    from dpbal.backends.vllm.front_end.kv_events import GroupSubscriber
    from dpbal.backends.vllm.rank.kv_events import RankPublisher

    index = KvEvents()
    index.start(1, 100_000)
    subscriber = GroupSubscriber(sockets, [index], 1)
    deadline_s = time.monotonic() + PATIENCE_S
    for blocks in (5, 3):
        publisher = RankPublisher(0, sockets, BLOCK, 100, NullEventPublisher())
        publisher.publish(KVEventBatch(ts=0.0, events=[stored(blocks, None, [])]))
        while index.sizes.tolist() != [blocks + 1]:
            assert time.monotonic() < deadline_s
            publisher.publish(KVEventBatch(ts=0.0, events=[stored(1, bytes([blocks - 1]), [])]))
            time.sleep(0.01)
            subscriber.take_in()
        publisher.shutdown()
    subscriber.close()


def test_a_listener_may_be_closed_while_it_listens(sockets: str) -> None:
    from dpbal.backends.vllm.front_end.kv_events import GroupSubscriber

    for _ in range(20):
        subscriber = GroupSubscriber(sockets, [], 2)
        closing = threading.Thread(target=subscriber.close)
        closing.start()
        while closing.is_alive():
            subscriber.take_in()
        subscriber.take_in()
        subscriber.close()


def test_blocks_of_another_size_than_front_ends_know_are_warned_of(
    make_told: MakeTold, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dpbal.backends.vllm.rank import scheduler

    said: list[str] = []
    monkeypatch.setattr(scheduler.LOG, "warning", lambda text, *sizes: said.append(text % sizes))
    own: Any = make_told()._engine.scheduler
    assert said == []
    own.kv_event_publisher.shutdown()
    own.cache_config.block_size = BLOCK // 2  # as if another group of layers had such blocks
    own._start_events(0)
    assert len(said) == 1
    assert "blocks of 16 tokens and another has 8; type indexer=own_record" in said[0]


class Theirs:
    """A publisher that is not dpbal's."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.has_ended = False

    def publish(self, events: Any) -> None:
        self.batches.append(events)

    def shutdown(self) -> None:
        self.has_ended = True


def test_vllms_own_publisher_goes_on(make_told: MakeTold) -> None:
    told, theirs = make_told(), Theirs()
    publisher: Any = told._engine.scheduler.kv_event_publisher
    publisher._own = theirs
    told.ask([9] * 100)
    told._engine.drain()
    assert [event.token_ids for batch in theirs.batches for event in batch.events]
    publisher.shutdown()
    assert theirs.has_ended
