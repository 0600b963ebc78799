"""What front ends are told of ranks' prefix caches is what is in them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from dpbal.backends.vllm.prefixes import Prompt
from dpbal.core import Request
from dpbal.indexers import KvEvents
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
        from dpbal.backends.vllm.kv_events import GroupSubscriber

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
    from dpbal.backends.vllm.kv_events import Sockets
    from dpbal.backends.vllm.settings import EVENTS

    made = Sockets.create(tmp_path)
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


def stored(blocks: int, parent: bytes | None, keys: list[Any], lora: str | None = None) -> Any:
    """vLLM's event; the hashes begin with the parent's, and the tokens count on from there."""
    from vllm.distributed.kv_events import BlockStored

    first = 0 if parent is None else 1 + parent[-1]
    return BlockStored(
        block_hashes=[bytes([first + k]) for k in range(blocks)],
        parent_block_hash=parent,
        token_ids=list(range(first * BLOCK, (first + blocks) * BLOCK)),
        block_size=BLOCK,
        lora_id=None,
        medium="GPU",
        lora_name=lora,
        extra_keys=keys,
    )


def test_what_is_more_than_tokens_is_left_out_with_all_that_follows() -> None:
    from vllm.distributed.kv_events import AllBlocksCleared, BlockRemoved

    from dpbal.backends.vllm.cached_blocks import CachedBlocks

    whole = Prompt(6 * BLOCK, range(6 * BLOCK), BLOCK).block_hashes()
    assert whole is not None
    blocks = CachedBlocks(BLOCK)
    image = [None, None, (("an image", 3),)]
    hashes, there = blocks.take([stored(3, None, image), stored(1, bytes([2]), [None])])
    assert (hashes.tolist(), there.tolist()) == (whole[:2].tolist(), [1, 1])
    embedded = stored(1, bytes([1]), [(b"a digest",)])
    assert blocks.take([embedded])[0].size == 0
    tail = [stored(1, bytes([1]), [None]), BlockRemoved([bytes([1])], "GPU")]
    hashes, there = blocks.take(tail)
    assert list(zip(hashes.tolist(), there.tolist(), strict=True)) == [(whole[2], 1), (whole[1], 0)]
    elsewhere = BlockRemoved([bytes([0])], "CPU")
    assert blocks.take([elsewhere])[0].size == 0
    hashes, there = blocks.take([AllBlocksCleared()])
    assert sorted(hashes.tolist()) == sorted([whole[0], whole[2]])
    assert not there.any()
    assert len(blocks) == 0


def test_a_block_that_is_there_twice_is_gone_when_both_are() -> None:
    from vllm.distributed.kv_events import BlockRemoved

    from dpbal.backends.vllm.cached_blocks import CachedBlocks

    blocks = CachedBlocks(BLOCK)
    blocks.take([stored(2, None, []), stored(2, None, [])])
    removed = BlockRemoved([bytes([1])], "GPU")
    assert blocks.take([removed])[0].size == 0
    assert blocks.take([removed])[1].tolist() == [0]
    assert len(blocks) == 1


def test_an_adapter_is_part_of_the_hash() -> None:
    from dpbal.backends.vllm.cached_blocks import CachedBlocks

    own = Prompt(2 * BLOCK, range(2 * BLOCK), BLOCK, lora="a", salt="s").block_hashes()
    event = stored(2, None, [("a", "s"), ("a",)], lora="a")
    assert own is not None
    assert np.array_equal(CachedBlocks(BLOCK).take([event])[0], own)


def test_sockets_of_dead_owners_go_and_those_of_live_ones_stay(tmp_path: Path) -> None:
    from dpbal.backends.vllm.kv_events import PREFIX, Sockets

    dead, live = tmp_path / f"{PREFIX}{2**22 + 1}-x", tmp_path / f"{PREFIX}{os.getpid()}-x"
    for folder in (dead, live):
        folder.mkdir()
        (folder / "0").touch()
    made = Sockets.create(tmp_path)
    assert not dead.exists()
    assert live.exists()
    assert Path(made.address).stat().st_mode & 0o077 == 0
    made.close()
    made.close()
    assert list(tmp_path.iterdir()) == [live]


def test_vllms_own_publisher_goes_on(make_told: MakeTold) -> None:
    from vllm.distributed.kv_events import EventPublisher

    class Theirs(EventPublisher):
        def __init__(self) -> None:
            super().__init__()
            self.batches: list[Any] = []
            self.has_ended = False

        def publish(self, events: Any) -> None:
            self.batches.append(events)

        def shutdown(self) -> None:
            self.has_ended = True

    told, theirs = make_told(), Theirs()
    publisher: Any = told._engine.scheduler.kv_event_publisher
    publisher._own = theirs
    told.ask([9] * 100)
    told._engine.drain()
    assert [event.token_ids for batch in theirs.batches for event in batch.events]
    publisher.shutdown()
    assert theirs.has_ended
