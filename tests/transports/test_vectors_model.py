"""Whatever ranks do in whatever order, a read gives one version of processes that are there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dpbal.core import VECTOR
from dpbal.transports import RING, Shm, Vectors

RANKS = 2


@dataclass
class Rank:
    """A rank, and what it has published since any rank started or closed."""

    end: Vectors | None = None
    wave: int = 0
    step: int = -1
    said: dict[tuple[int, int], int] = field(default_factory=dict)


class Machine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.exchange = Shm().create(RANKS + 1, 1)  # the last one reads
        self.ranks = [Rank() for _ in range(RANKS + 1)]
        self.start(RANKS)

    @rule(rank=st.integers(0, RANKS - 1))
    def start(self, rank: int) -> None:
        if self.ranks[rank].end is None:
            self.ranks[rank] = Rank(Shm().vectors(self.exchange.address, rank))
            self.forget()

    @rule(rank=st.integers(0, RANKS - 1))
    def close(self, rank: int) -> None:
        end = self.ranks[rank].end
        if end is not None:
            end.close()
            self.ranks[rank] = Rank()
            self.forget()

    def forget(self) -> None:
        for known in self.ranks:
            known.said.clear()

    @rule(rank=st.integers(0, RANKS), number=st.integers(0, 2**62), steps=st.integers(1, 3))
    def publish(self, rank: int, number: int, steps: int) -> None:
        known = self.ranks[rank]
        for _ in range(steps if known.end is not None else 0):
            assert known.end is not None
            known.step += 1
            known.end.own["decode_seqs"] = known.end.own["done_tokens"] = number
            known.end.publish(known.wave, known.step)
            known.said[known.wave, known.step] = number

    @rule(rank=st.integers(0, RANKS))
    def next_wave(self, rank: int) -> None:
        self.ranks[rank].wave += 1
        self.ranks[rank].step = -1

    @invariant()
    def reads_are_right(self) -> None:
        if not hasattr(self, "ranks"):
            return
        end = self.ranks[RANKS].end
        assert end is not None
        for wave in range(max(known.wave for known in self.ranks) + 1):
            for step in range(-1, max(known.step for known in self.ranks) + 2):
                version = (wave, step)
                vectors = np.full(RANKS + 1, -1, VECTOR)
                found = end.read(wave, step, vectors)
                wanted = [known.said.get(version, -1) if found else -1 for known in self.ranks]
                assert vectors["decode_seqs"].tolist() == wanted
                assert vectors["done_tokens"].tolist() == wanted
                if all(
                    version in known.said and known.wave == wave and known.step - step < RING
                    for known in self.ranks
                ):
                    assert found
                if not all(version in known.said for known in self.ranks):
                    assert not found

    def teardown(self) -> None:
        for known in self.ranks:
            if known.end is not None:
                known.end.close()
        self.exchange.close()


TestReads = Machine.TestCase
TestReads.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
