"""What every transport between processes must do with budget vectors."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dpbal.core import VECTOR
from dpbal.errors import DpbalError
from dpbal.transports import RING, Exchange, Vectors
from tests.transports.groups import CASES, LOOK_S, PARAMS, PATIENCE_S, Case
from tests.transports.processes import Process

FIELDS = len(VECTOR.names or ())


class Group:
    """Three ranks; ends in this process or in others."""

    def __init__(self, case: Case, start: Callable[..., Process]) -> None:
        self.case = case
        self.transport = case.build()
        self.exchange: Exchange = self.transport.create(3, 1)
        self._start = start
        self._ends: list[Vectors] = []

    def here(self, rank: int) -> Vectors:
        self._ends.append(self.transport.vectors(self.exchange.address, rank))
        return self._ends[-1]

    def elsewhere(self, rank: int, code: str = "") -> Process:
        """A process with the rank's end as ``e``, and room for what it reads as ``v``."""
        return self._start(
            "import numpy as np; from dpbal.core import VECTOR\n"
            f"{self.case.code}\n"
            f"e = t.vectors({self.exchange.address!r}, {rank}); v = np.zeros(3, VECTOR)\n{code}",
            modules=self.case.modules,
        )

    def sees(self, end: Vectors, wave: int, steps: range, wanted: list[int]) -> None:
        """Exactly these steps of a wave can be read; at once, where the transport says so."""
        deadline_s = time.monotonic() + (0 if self.case.is_at_once else PATIENCE_S)
        while (found := steps_read(end, wave, steps)) != wanted and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)
        assert found == wanted

    def close(self) -> None:
        for end in self._ends:
            end.close()
        self.exchange.close()


@pytest.fixture(params=PARAMS)
def group(request: pytest.FixtureRequest, start: Callable[..., Process]) -> Iterator[Group]:
    made = Group(request.param, start)
    yield made
    made.close()


def publish(ends: list[Vectors], wave: int, step: int, first: int = 0) -> None:
    """Every rank from the first on publishes a version, with its number and the step in it."""
    for rank, end in enumerate(ends[first:], first):
        end.own["decode_s"], end.own["decode_seqs"] = step + rank / 10, step
        end.publish(wave, step)


def steps_read(end: Vectors, wave: int, steps: range) -> list[int]:
    """The steps of a wave that can be read, after a look at what a read gives and what not."""
    found = []
    for step in steps:
        vectors = np.full(3, -7, VECTOR)
        before = vectors.copy()
        if end.read(wave, step, vectors):
            assert vectors["decode_s"].tolist() == [step + rank / 10 for rank in range(3)]
            assert vectors["decode_seqs"].tolist() == [step] * 3
            found.append(step)
        else:
            assert (vectors == before).all()
    return found


LOOKS = """
import time
def look(at_once, wave, step):
    while not e.read(wave, step, v) and not at_once:
        time.sleep(0.001)
    return bool(e.read(wave, step, v))
"""


def test_every_process_reads_what_all_have_published_bit_for_bit(group: Group) -> None:
    processes = [group.elsewhere(rank, LOOKS) for rank in range(3)]
    for rank, process in enumerate(processes):
        process.do(f"e.own[0] = tuple(range({rank}, {rank} + {FIELDS}))")
        process.do("e.publish(4, 11)")
    for process in processes:
        assert process.do(f"look({group.case.is_at_once}, 4, 11)") is True
        assert np.array(process.do("v.tolist()")).tolist() == [
            list(range(rank, rank + FIELDS)) for rank in range(3)
        ]


def test_the_last_steps_can_be_read_and_no_other(group: Group) -> None:
    ends = [group.here(rank) for rank in range(3)]
    for step in range(20):
        publish(ends, 0, step)
        last = range(max(0, step - RING + 1), step + 1)
        group.sees(ends[step % 3], 0, range(-RING, step + RING), list(last))


def test_a_step_is_of_one_wave(group: Group) -> None:
    ends = [group.here(rank) for rank in range(3)]
    publish(ends, 1, 5)
    for wave in (0, 2):
        group.sees(ends[0], wave, range(10), [])
    publish(ends[:2], 2, 5)
    group.sees(ends[0], 2, range(10), [])
    publish(ends, 2, 5)
    group.sees(ends[0], 2, range(10), [5])


def test_nothing_can_be_read_before_every_rank_has_published_it(group: Group) -> None:
    ends = [group.here(rank) for rank in range(2)]
    publish(ends, 0, 0)
    group.sees(ends[0], 0, range(3), [])
    ends.append(group.here(2))
    publish(ends, 0, 0)
    publish(ends[:2], 0, 1)
    group.sees(ends[2], 0, range(3), [0])


LOCKSTEP = """
def run(rank, steps):
    import time
    tried = 0
    for step in range(steps):
        e.own["decode_seqs"] = e.own["done_tokens"] = rank * steps + step
        e.publish(0, step)
        while not e.read(0, step, v):
            tried += 1
            time.sleep(0)
        wanted = [r * steps + step for r in range(3)]
        if v["decode_seqs"].tolist() != wanted or v["done_tokens"].tolist() != wanted:
            return f"{step}: {v}"
    return tried
"""


def test_ranks_that_wait_for_each_other_by_their_vectors_alone_all_see_the_same(
    group: Group,
) -> None:
    processes = [group.elsewhere(rank, LOCKSTEP) for rank in range(3)]
    for rank, process in enumerate(processes[:2]):
        process.do(f"import threading; r = []; k = {rank}")
        process.do("x = threading.Thread(target=lambda: r.append(run(k, 2000))); x.start()")
    tried = [processes[2].do("run(2, 2000)")]
    tried += [process.do("x.join() or r[0]") for process in processes[:2]]
    assert all(isinstance(count, int) for count in tried), tried
    assert any(tried)  # some did wait


def test_a_rank_that_was_killed_and_starts_again_does_not_speak_for_its_former_self(
    group: Group,
) -> None:
    ends = [group.here(rank) for rank in range(2)]
    killed = group.elsewhere(2)
    killed.do("e.own['decode_s'], e.own['decode_seqs'] = 0.2, 0; e.publish(0, 0)")
    publish(ends, 0, 0)
    group.sees(ends[0], 0, range(3), [0])
    killed.end(signal.SIGKILL)
    group.sees(ends[0], 0, range(3), [0])  # all have said so
    publish(ends, 0, 1)
    group.sees(ends[0], 0, range(3), [0])  # a dead rank says nothing new
    ends.append(group.here(2))
    group.sees(ends[0], 0, range(3), [])
    publish(ends, 0, 0, first=2)
    group.sees(ends[0], 0, range(3), [])  # new of one, old of the others
    publish(ends, 0, 0)
    group.sees(ends[0], 0, range(3), [0])


@pytest.mark.parametrize("ending", ["e.close()", "exit()", "raise SystemError('on purpose')"])
def test_nothing_can_be_read_when_a_rank_has_closed_or_ended(group: Group, ending: str) -> None:
    ends = [group.here(rank) for rank in range(2)]
    other = group.elsewhere(2)
    other.do("e.own['decode_s'], e.own['decode_seqs'] = 0.2, 0; e.publish(0, 0)")
    publish(ends, 0, 0)
    group.sees(ends[0], 0, range(3), [0])
    other.tell(ending)
    other.end()
    group.sees(ends[0], 0, range(3), [])


def test_a_rank_has_one_end_beside_its_publisher(group: Group) -> None:
    address = group.exchange.address
    publisher = group.transport.publisher(address, 0)
    first = group.here(0)
    with pytest.raises(DpbalError, match=r"rank 0 .* publishes budget vectors already"):
        group.transport.vectors(address, 0)
    publisher.publish()
    first.publish(0, 0)
    first.close()
    first.close()
    with pytest.raises(ValueError, match="is closed"):
        first.publish(0, 1)
    group.here(0).publish(0, 0)
    publisher.publish()
    publisher.close()


def test_what_does_not_fit_is_one_clear_line(group: Group) -> None:
    with pytest.raises(DpbalError, match=r"no rank 3 .* 0 to 2"):
        group.transport.vectors(group.exchange.address, 3)
    with pytest.raises(ValueError, match="vectors of 3 ranks, got 2"):
        group.here(0).read(0, 0, np.zeros(2, VECTOR))
    group.exchange.close()
    with pytest.raises(DpbalError, match="exists as long as"):
        group.transport.vectors(group.exchange.address, 1)


DIES_IN_MID_WRITE = """
import os, signal
from dpbal.transports.shm import seqlock
def die(step):
    ring, entry_bytes, era, record = e._ring
    seqlock.begin(ring + step % 8 * entry_bytes)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_rank_that_is_killed_in_mid_write_makes_nobody_wait_and_can_start_again(
    start: Callable[[str], Process],
) -> None:
    group = Group(CASES[0], start)
    ends = [group.here(rank) for rank in range(2)]
    killed = group.elsewhere(2, DIES_IN_MID_WRITE)
    killed.do("e.own['decode_s'], e.own['decode_seqs'] = 0.2, 0; e.publish(0, 0)")
    for step in (0, 1):
        publish(ends, 0, step)
    killed.tell("die(1)")
    killed.end()
    group.sees(ends[0], 0, range(3), [0])
    ends.append(group.here(2))
    publish(ends, 0, 1)
    group.sees(ends[0], 0, range(3), [1])
    group.close()
