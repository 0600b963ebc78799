"""Where the emulated ranks of a lockstep group wait for each other."""

from __future__ import annotations

import time

import numpy as np

from dpbal.backends.vllm.emulated.device import Device, Ticket
from dpbal.errors import DpbalError
from dpbal.sharedmem import LINE_BYTES, Segment
from dpbal.step_time import StepTime
from dpbal.transports.base import Exchange

SLOTS = 8
"""Steps that a rank may be ahead of another's reading; a scheduler a step ahead needs four."""

RANK_BYTES = SLOTS * LINE_BYTES

POST = ("begin_s", "local_s", "prefill_tokens", "decode_seqs")
"""What a rank posts; begin_s is nan where it goes on without a rest."""

POLL_S = 0.0005
PATIENCE_S = 120.0


class BarrierError(DpbalError, RuntimeError):
    """A rank of an emulated lockstep group that does not come to a step."""


class Barrier(Exchange):
    """A board on which each rank posts, for each step, what it computes and how long it takes.

    Args:
        segment: Where it is.
        ranks: How many ranks meet there.

    Attributes:
        posts: ``float64[ranks, POST]``, the step gathered last.
    """

    def __init__(self, segment: Segment, ranks: int) -> None:
        from dpbal.backends.vllm.emulated.posts import gather, post

        self._segment = segment
        self.address = segment.name
        self._post = post
        self._gather = gather
        self.ranks = ranks
        self.posts = np.zeros((ranks, len(POST)))
        self._own = np.zeros(len(POST))

    @classmethod
    def create(cls, ranks: int) -> Barrier:
        """A new one, held by this process.

        Raises:
            SharedMemoryError: If the host has no shared memory for it.
        """
        return cls(Segment.create("barrier", ranks * RANK_BYTES), ranks)

    @classmethod
    def attach(cls, address: str) -> Barrier:
        """The one that another process holds.

        Raises:
            SharedMemoryError: If there is none.
        """
        segment = Segment.attach(address)
        return cls(segment, segment.size // RANK_BYTES)

    def post(self, rank: int, ticket: Ticket) -> None:
        """Tell the others what a rank does in a step."""
        begin_s = np.nan if ticket.begin_s is None else ticket.begin_s
        work = ticket.work
        self._own[:] = begin_s, ticket.local_s, work.prefill_tokens, work.decode_seqs
        slot = self._slot(ticket.number) + rank * RANK_BYTES
        self._post(slot, ticket.number, self._own.view(np.int64))

    def gather(self, number: int) -> int | None:
        """Read what all ranks posted for a step: the first that has not yet, None if all have."""
        words = self.posts.view(np.int64)
        missing = self._gather(self._slot(number), RANK_BYTES, number, words)
        return None if missing == self.ranks else missing

    def close(self) -> None:
        """Remove it."""
        self._segment.close()

    def _slot(self, number: int) -> int:
        return self._segment.address + number % SLOTS * LINE_BYTES


class LockstepDevice(Device):
    """A GPU whose every step ends with the slowest rank's, the common part included.

    A group in which no rank has work rests; its next step starts when the last rank has come.

    Args:
        step_time: The profile.
        dilation: How many times slower than the profile says steps are.
        address: Of the barrier.
        rank: The device's rank.
    """

    def __init__(self, step_time: StepTime, dilation: float, address: str, rank: int) -> None:
        super().__init__(step_time, dilation)
        self._barrier = Barrier.attach(address)
        self._rank = rank

    def idle(self) -> None:
        """A dummy batch follows: the group rests when no rank of it has tokens."""

    def _queue(self, ticket: Ticket) -> None:
        self._barrier.post(self._rank, ticket)

    def _times_s(self, ticket: Ticket) -> tuple[float, float]:
        self._meet(ticket)
        begins_s, local_s, prefill, decodes = self._barrier.posts.T
        start_s = np.fmax(self._end_s, begins_s)  # nan where a rank has not rested
        is_mixed = bool(prefill.any() and decodes.any())
        tokens = (prefill + decodes).tolist()
        common_s = self._step_time.common_s(tokens, is_mixed)
        slowest_s = float((start_s + self._dilation * local_s).max())
        if not any(tokens):
            self.rest()
        return float(start_s[self._rank]), slowest_s + self._dilation * common_s

    def _meet(self, ticket: Ticket) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        wait_s = self._dilation * ticket.local_s
        while (missing := self._barrier.gather(ticket.number)) is not None:
            time.sleep(max(POLL_S, wait_s))
            wait_s = 0.0
            if time.monotonic() > deadline_s:
                raise BarrierError(
                    f"rank {missing} has not come to step {ticket.number} of its lockstep group "
                    f"within {PATIENCE_S:.0f} s of rank {self._rank}; its engine has stopped"
                )

    def close(self) -> None:
        """Let go of the barrier."""
        self._barrier.close()
