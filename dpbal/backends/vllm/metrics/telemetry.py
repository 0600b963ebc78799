"""What ranks count for an operator, in shared memory of their host; nothing of it is a policy's.

Every rank has a few lines of its own and is the only one that writes there: plain words, each read
and written whole. Counters only grow. A rank of another host has no lines here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from dpbal.budgets.base import UNLIMITED
from dpbal.sharedmem import LINE_BYTES, Segment

if TYPE_CHECKING:
    from dpbal.backends.vllm.rank.pacing import Pacing

RING = 8
"""Steps of a wave for which a rank's seconds are kept, as for budget vectors."""

ROW_BYTES = 3 * LINE_BYTES

# words of a rank's lines
STATE, STEPS, LOCAL_S = 0, 1, 2
BUDGET_STEPS, ALONE_STEPS, LIMIT_TOKENS, LIMIT_S, LEVEL_S = 3, 4, 5, 6, 7
MATCHED, SKIPPED, MEAN_S, LONGEST_S = 8, 9, 10, 11
RING_START, ENTRY_WORDS = 16, 4
WAVE, STEP, STEP_S = 0, 1, 2

HERE, HAS_BUDGET, MATCHES = 1, 2, 4
"""Bits of ``STATE``."""


class BudgetWords(NamedTuple):
    """What a rank's budget says.

    Attributes:
        steps: Steps that it has set limits for.
        alone_steps: Those without knowledge of the other ranks.
        limit_tokens: Most prefill tokens in the newest one; infinity for no limit.
        limit_s: Likewise seconds of prefill.
        level_s: Local seconds up to which the rank may fill that step, its decodes included.
    """

    steps: int
    alone_steps: int
    limit_tokens: float
    limit_s: float
    level_s: float


class GroupWords(NamedTuple):
    """Local seconds of a lockstep group's steps, by the profile.

    Attributes:
        steps: Steps in which a rank had tokens.
        skipped: Steps of which not every rank's seconds could be found.
        mean_s: Sum over the first of the mean over ranks.
        longest_s: Sum over them of the longest.
    """

    steps: int
    skipped: int
    mean_s: float
    longest_s: float


class RankWords(NamedTuple):
    """What one rank has counted.

    Attributes:
        steps: Steps with tokens.
        local_s: Their local seconds, by the profile.
        budget: What its budget says; None where it has none to keep to.
        group: What it knows of all ranks; None for every rank but the one that compares them.
    """

    steps: int
    local_s: float
    budget: BudgetWords | None
    group: GroupWords | None


class Telemetry:
    """The lines of all ranks of a group, those of another host left blank.

    Args:
        segment: Where they are.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self.address = segment.name
        self.ranks = segment.size // ROW_BYTES
        shape = (self.ranks, ROW_BYTES // 8)
        self.words = segment.array(np.int64, shape)
        # one word of a memoryview costs half of what it costs in numpy
        self.integers = self.words.data
        self.floats = cast("memoryview[float]", self.words.view(np.float64).data)

    @classmethod
    def create(cls, ranks: int) -> Telemetry:
        """New ones, held by this process.

        Raises:
            SharedMemoryError: If the host has no shared memory for it.
        """
        return cls(Segment.create("telemetry", ranks * ROW_BYTES))

    @classmethod
    def attach(cls, address: str) -> Telemetry:
        """Those that another process holds.

        Raises:
            SharedMemoryError: If there are none.
        """
        return cls(Segment.attach(address))

    def read(self, rank: int) -> RankWords | None:
        """What a rank has counted; None for one that has not started here."""
        integers, floats = self.integers, self.floats
        state = integers[rank, STATE]
        if not state & HERE:
            return None
        budget = group = None
        if state & HAS_BUDGET:
            tokens = integers[rank, LIMIT_TOKENS]
            budget = BudgetWords(
                integers[rank, BUDGET_STEPS],
                integers[rank, ALONE_STEPS],
                math.inf if tokens == UNLIMITED else float(tokens),
                floats[rank, LIMIT_S],
                floats[rank, LEVEL_S],
            )
        if state & MATCHES:
            group = GroupWords(
                integers[rank, MATCHED],
                integers[rank, SKIPPED],
                floats[rank, MEAN_S],
                floats[rank, LONGEST_S],
            )
        return RankWords(integers[rank, STEPS], floats[rank, LOCAL_S], budget, group)

    def close(self) -> None:
        """Let go of them, and remove them if this process made them."""
        self._segment.close()


class RankTelemetry:
    """A rank's end: it counts its steps, and rank 0 of a lockstep group compares all ranks' too.

    Args:
        telemetry: Where it writes.
        rank: Its own.
        matches: Whether it compares: all ranks of its lockstep group are on this host.
        lag: Steps that are under way when the next one is scheduled.
    """

    def __init__(
        self, telemetry: Telemetry, rank: int, matches: bool = False, lag: int = 1
    ) -> None:
        self._telemetry = telemetry
        self._integers = telemetry.integers
        self._floats = telemetry.floats
        self._rank = rank
        self._matches = matches
        self._lag = lag
        self._wave, self._step, self._next = -1, -1, 0
        self._integers[rank, STATE] = HERE | (MATCHES if matches else 0)

    def begin(self, wave: int, step: int) -> None:
        """A step of the group is next; until ``give`` this rank has nothing in it.

        Args:
            wave: Which time that the group has work.
            step: Steps of the wave before this one.
        """
        if self._matches and wave != self._wave:
            self.rest()  # of a wave that ended without a word
            self._next = 0
        self._wave, self._step = wave, step
        entry = RING_START + step % RING * ENTRY_WORDS
        self._floats[self._rank, entry + STEP_S] = 0.0
        self._integers[self._rank, entry + WAVE] = wave
        self._integers[self._rank, entry + STEP] = step
        if self._matches:
            # every rank has scheduled that one: it has ended, and none ends without all ranks
            self._compare(step - self._lag)

    def give(self, local_s: float) -> None:
        """The step holds tokens, for so many seconds of the rank's own time."""
        rank = self._rank
        self._integers[rank, STEPS] += 1
        self._floats[rank, LOCAL_S] += local_s
        if self._step >= 0:
            self._floats[rank, RING_START + self._step % RING * ENTRY_WORDS + STEP_S] = local_s

    def pace(self, pacing: Pacing) -> None:
        """Say what the budget allows in the next step."""
        rank, integers, floats = self._rank, self._integers, self._floats
        integers[rank, BUDGET_STEPS] = pacing.steps
        integers[rank, ALONE_STEPS] = pacing.alone_steps
        integers[rank, LIMIT_TOKENS] = pacing.limit_tokens
        floats[rank, LIMIT_S] = pacing.limit_s
        floats[rank, LEVEL_S] = pacing.limit_s + pacing.own["decode_s"].item()
        integers[rank, STATE] |= HAS_BUDGET

    def rest(self) -> None:
        """The wave has ended: all ranks have come to its last step."""
        if self._matches:
            self._compare(self._step)

    def close(self) -> None:
        """Count no more."""
        self._telemetry.close()

    def _compare(self, last: int) -> None:
        """Compare all ranks in the steps of the wave up to ``last``, from where it was left."""
        lost = last - RING + 1 - self._next  # older ones are overwritten
        if lost > 0:
            self._integers[self._rank, SKIPPED] += lost
            self._next += lost
        while self._next <= last:
            step_s = self._find(self._next)
            self._next += 1
            rank, integers, floats = self._rank, self._integers, self._floats
            if step_s is None:
                integers[rank, SKIPPED] += 1
                continue
            longest_s = step_s.max().item()
            if longest_s > 0:
                integers[rank, MATCHED] += 1
                floats[rank, MEAN_S] += step_s.sum().item() / len(step_s)
                floats[rank, LONGEST_S] += longest_s

    def _find(self, step: int) -> np.ndarray | None:
        """Local seconds of all ranks in a step of this wave; None where one has no such step."""
        entry = RING_START + step % RING * ENTRY_WORDS
        entries = self._telemetry.words[:, entry : entry + ENTRY_WORDS].copy()
        if (entries[:, WAVE] != self._wave).any() or (entries[:, STEP] != step).any():
            return None
        step_s: np.ndarray = entries[:, STEP_S].view(np.float64)
        return step_s
