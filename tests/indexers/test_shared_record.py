from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from dpbal.errors import ConfigError
from dpbal.indexers import SharedRecord
from dpbal.indexers.dispatch_rings import BEGUN, MOST_HASHES, RING_BYTES, RING_WORDS
from dpbal.indexers.shared_dispatches import Dispatches, DispatchExchange
from dpbal.sharedmem import LINE_BYTES, WORD_BYTES, Segment, SharedMemoryError, sweep
from dpbal.sharedmem.segment import FOLDER
from tests.indexers.naive import BLOCK_TOKENS, prompt
from tests.transports.processes import Process

RANKS = 4

START = """
import numpy as np
from dpbal.core import Request
from dpbal.indexers import SharedRecord

def prompt(number, start, blocks):
    hashes = np.arange(start, start + blocks)
    return Request(number, 0.0, 1 + 16 * blocks, block_hashes=hashes, block_tokens=16)

record = SharedRecord()
record.start(4, 10**8)
"""


@pytest.fixture
def exchange() -> Iterator[DispatchExchange]:
    exchange = SharedRecord.create(3)
    yield exchange
    exchange.close()


@pytest.fixture
def process(exchange: DispatchExchange) -> Iterator[Callable[[int], Process]]:
    """Starts a process that is a dispatcher; none outlives the test."""
    processes: list[Process] = []

    def start(dispatcher: int) -> Process:
        processes.append(Process(START))
        processes[-1].do(f"record.connect({exchange.address!r}, {dispatcher})")
        return processes[-1]

    yield start
    for one in processes:
        if not one.has_ended:
            one.end(signal.SIGKILL)


def connected(exchange: DispatchExchange, dispatcher: int) -> SharedRecord:
    record = SharedRecord()
    record.start(RANKS, 10**8)
    record.connect(exchange.address, dispatcher)
    return record


def matches(record: SharedRecord, start: int, blocks: int) -> list[int]:
    found: list[int] = record.match(prompt("?", range(start, start + blocks))).tolist()
    return found


def test_processes_know_what_the_others_have_sent(
    exchange: DispatchExchange, process: Callable[[int], Process]
) -> None:
    record = connected(exchange, 0)
    others = [process(number) for number in (1, 2)]
    record.dispatched(prompt(1, range(100, 140)), 3, 5.0)
    others[0].do("record.dispatched(prompt(1, 1000, 70), 1, 9e9)")  # by a clock of its own
    for other in others:
        assert other.do("record.match(prompt(2, 100, 50)).tolist()") == [0, 0, 0, 40]
    assert others[1].do("record.match(prompt(3, 1000, 99)).tolist()") == [0, 70, 0, 0]
    assert matches(record, 1000, 99) == [0, 70, 0, 0]
    assert others[1].do("record.sizes.tolist()") == [0, 70, 0, 40]
    assert others[1].do("record.overruns") == 0
    record.forget(1)  # each learns of a restart by itself
    assert matches(record, 1000, 99) == [0] * RANKS
    for other in others:
        assert other.end() == 0
    assert matches(record, 100, 40) == [0, 0, 0, 40]
    record.close()


def test_a_process_that_is_killed_costs_nothing_and_learns_all_when_it_is_back(
    exchange: DispatchExchange, process: Callable[[int], Process]
) -> None:
    record = connected(exchange, 0)
    other = process(1)
    other.do("record.dispatched(prompt(1, 0, 10), 2, 1.0)")
    record.dispatched(prompt(1, range(500, 520)), 0, 1.0)
    other.end(signal.SIGKILL)
    assert matches(record, 0, 10) == [0, 0, 10, 0]
    record.dispatched(prompt(2, range(900, 905)), 1, 2.0)
    other = process(1)
    assert other.do("record.match(prompt(1, 0, 12)).tolist()") == [0, 0, 10, 0]
    assert other.do("record.match(prompt(1, 500, 30)).tolist()") == [20, 0, 0, 0]
    assert other.do("record.match(prompt(1, 900, 30)).tolist()") == [0, 5, 0, 0]
    other.do("record.dispatched(prompt(2, 40, 6), 3, 1.0)")
    assert matches(record, 40, 6) == [0, 0, 0, 6]
    other.end()


def test_who_is_too_slow_loses_dispatches_and_hears_the_next(exchange: DispatchExchange) -> None:
    record, other = connected(exchange, 0), connected(exchange, 1)
    blocks = 1000
    for number in range(RING_WORDS // blocks + 10):
        other.dispatched(prompt(number, range(number * blocks, (number + 1) * blocks)), 0, 1.0)
    assert matches(record, 0, blocks) == [0] * RANKS
    assert record.overruns == 1
    other.dispatched(prompt("next", range(-50, -10)), 2, 2.0)
    assert matches(record, -50, 40) == [0, 0, 40, 0]
    assert record.overruns == 1


def test_a_ring_may_be_filled_again_and_again(exchange: DispatchExchange) -> None:
    record, other = connected(exchange, 0), connected(exchange, 2)
    generator = np.random.default_rng(0)
    words = 0
    while words < 3 * RING_WORDS:
        blocks = int(generator.integers(0, 5000))
        start = int(generator.integers(-(10**12), 10**12))
        rank = int(generator.integers(RANKS))
        other.dispatched(prompt(words, range(start, start + blocks)), rank, 1.0)
        assert matches(record, start, blocks)[rank] == blocks
        words += blocks + 1
    assert record.overruns == 0
    assert record.sizes.tolist() == other.sizes.tolist()


def test_a_prompt_that_no_ring_could_hold_is_known_by_its_beginning(
    exchange: DispatchExchange,
) -> None:
    record, other = connected(exchange, 0), connected(exchange, 1)
    other.dispatched(prompt(1, range(2 * RING_WORDS)), 1, 1.0)
    assert matches(other, 0, 2 * RING_WORDS)[1] == 2 * RING_WORDS
    assert matches(record, 0, 2 * RING_WORDS)[1] == MOST_HASHES
    assert record.overruns == 0


def test_nobody_believes_what_is_written_over_meanwhile(
    exchange: DispatchExchange, process: Callable[[int], Process]
) -> None:
    """A writer without a pause: of what is read, every prompt is one that was sent, and where."""
    other = process(1)
    other.do(
        "import threading\n"
        "def send():\n"
        "    number = 0\n"
        "    while not stop:\n"
        "        start = number << 20\n"
        "        hashes = np.arange(start, start + number * 7919 % 3000)\n"
        "        record._dispatches.tell(hashes, number % 4, 16)\n"
        "        number += 1\n"
        "stop = []\n"
        "threading.Thread(target=send, daemon=True).start()"
    )
    dispatches = Dispatches(exchange.address, 0)
    heard = 0
    while heard < 2000 or dispatches.overruns < 100:
        assert not other.has_ended
        if heard % 10 == 0:
            time.sleep(random.random() * 1e-3)  # to be about a ring behind, often
        for hashes, rank, block_tokens in dispatches.news():
            heard += 1
            assert block_tokens == BLOCK_TOKENS
            if len(hashes):
                number = int(hashes[0]) >> 20
                assert rank == number % RANKS
                assert len(hashes) == number * 7919 % 3000
                assert np.array_equal(hashes, (number << 20) + np.arange(len(hashes)))
    other.do("stop.append(1)")
    dispatches.close()


def test_a_writer_that_was_killed_in_mid_write_is_continued(exchange: DispatchExchange) -> None:
    record = connected(exchange, 0)
    other = connected(exchange, 1)
    other.dispatched(prompt(1, range(30)), 0, 1.0)
    other.close()
    # it was about to write a long prompt, and came half way
    segment = Segment.attach(exchange.address)
    ring = LINE_BYTES + RING_BYTES
    segment.array(np.int64, (1,), ring + BEGUN)[0] += 20_000
    segment.array(np.int64, (10_000,), ring + LINE_BYTES + 33 * WORD_BYTES)[:] = -12345
    assert matches(record, 0, 30) == [30, 0, 0, 0]
    again = connected(exchange, 1)
    again.dispatched(prompt(2, range(100, 130)), 2, 1.0)
    assert matches(record, 100, 30) == [0, 0, 30, 0]
    assert record.sizes.tolist() == [30, 0, 30, 0]
    assert record.overruns == 0


def test_what_a_killed_writer_wrote_over_is_not_believed_after_its_next(
    exchange: DispatchExchange,
) -> None:
    record, other = connected(exchange, 0), connected(exchange, 1)
    blocks = RING_WORDS // 4 - 28
    for number in range(4):  # all but the last 100 words of the ring
        other.dispatched(prompt(number, number * blocks + np.arange(blocks)), 0, 1.0)
    other.close()
    segment = Segment.attach(exchange.address)
    ring = LINE_BYTES + RING_BYTES
    segment.array(np.int64, (1,), ring + BEGUN)[0] += 20_000
    segment.array(np.int64, (9000,), ring + LINE_BYTES + 3 * WORD_BYTES)[:] = 7
    again = connected(exchange, 1)
    again.dispatched(prompt(5, range(-30, 0)), 2, 1.0)
    assert matches(record, -30, 30) == [0] * RANKS
    assert record.match(prompt(6, [7])).tolist() == [0] * RANKS
    assert record.overruns == 1


def test_a_dispatcher_is_there_once(exchange: DispatchExchange) -> None:
    record = connected(exchange, 1)
    with pytest.raises(SharedMemoryError, match=r"dispatcher 1 at .* is there already"):
        connected(exchange, 1)
    record.close()
    record.close()
    connected(exchange, 1)


@pytest.mark.parametrize("number", [-1, 3])
def test_a_dispatcher_that_does_not_exist_is_refused(
    exchange: DispatchExchange, number: int
) -> None:
    with pytest.raises(SharedMemoryError, match=f"no dispatcher {number} at .*0 to 2"):
        connected(exchange, number)


def test_other_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 dispatcher, got 0"):
        SharedRecord.create(0)
    loads = Segment.create("loads", 4096)
    record: Any = SharedRecord()
    record.start(RANKS, 1000)
    with pytest.raises(SharedMemoryError, match="holds no dispatches"):
        record.connect(loads.name, 0)
    with pytest.raises(SharedMemoryError, match="is not the name of shared memory"):
        record.connect("nowhere", 0)
    loads.close()


def test_nothing_is_left_when_the_owner_ends_or_is_killed() -> None:
    for how in (None, signal.SIGKILL):
        owner = Process(START)
        owner.do("exchange = SharedRecord.create(2)")
        name = owner.do("exchange.address")
        owner.do(f"record.connect({name!r}, 0)")
        assert (FOLDER / name).exists()
        owner.end(how)
        if how is not None:
            sweep()  # as the next owner of anything does
        assert not (FOLDER / name).exists()


def test_records_of_one_process_need_no_exchange() -> None:
    record = SharedRecord()
    record.start(RANKS, 10**6)
    record.dispatched(prompt(1, range(20)), 1, 1.0)
    assert matches(record, 0, 20) == [0, 20, 0, 0]
    assert record.overruns == 0
    record.close()
