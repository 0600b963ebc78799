"""The clock of an emulated GPU: when a step starts and ends, on the host's monotonic clock."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from typing import NamedTuple

from dpbal.backends.vllm.emulated.batch import Work
from dpbal.step_time import StepTime

LATE_S = 0.001
"""A host that goes on so long after a step's end has not held anything up worth counting."""


REMEMBERED = 8
"""Steps whose durations are known; a scheduler a step ahead asks for the last but one."""


class Ticket(NamedTuple):
    """A step that has been submitted.

    Attributes:
        number: Steps of this device before it.
        begin_s: When the device was given work after a rest; None where it had not rested.
        work: What the step computes.
        local_s: How long the rank's own part takes, undilated.
    """

    number: int
    begin_s: float | None
    work: Work
    local_s: float


class Step(NamedTuple):
    """When a step ran, in seconds on the host's monotonic clock.

    Attributes:
        number: Steps of this device before it.
        start_s: Its start.
        end_s: Its end, as the profile says.
        is_late: Whether the host came for the result only after the end.
    """

    number: int
    start_s: float
    end_s: float
    is_late: bool


class Device(ABC):
    """Turns the work of a step into a time to wait.

    Steps follow each other without a gap for as long as the engine has work, as on a device whose
    host is never the bottleneck: the next one starts at the end of the one before, however long
    the host took in between. A step whose host comes back only after its end is late; where many
    are, the host is too slow, and a larger dilation is needed.

    Args:
        step_time: The profile.
        dilation: How many times slower than the profile says steps are.
    """

    def __init__(self, step_time: StepTime, dilation: float) -> None:
        self._step_time = step_time
        self._dilation = dilation
        self._submitted = self._ended = 0
        self._took_s: deque[float] = deque(maxlen=REMEMBERED)
        self._end_s = 0.0
        self._rests = True

    def rest(self) -> None:
        """The engine has nothing to do: the next step starts when it is submitted."""
        self._rests = True

    def idle(self) -> None:
        """The engine has been through a step without tokens."""
        self.rest()

    def submit(self, work: Work) -> Ticket:
        """Queue a step behind those that were submitted before."""
        begin_s = time.monotonic() if self._rests else None
        self._rests = False
        ticket = Ticket(self._submitted, begin_s, work, self._step_time.local_s(*work))
        self._submitted += 1
        self._queue(ticket)
        return ticket

    def finish(self, ticket: Ticket) -> Step:
        """Wait for the end of a step; steps are finished in the order of their submission."""
        start_s, end_s = self._times_s(ticket)
        self._end_s = end_s
        self._ended = ticket.number + 1
        self._took_s.append((end_s - start_s) / self._dilation)
        wait_s = end_s - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        return Step(ticket.number, start_s, end_s, wait_s < -LATE_S)

    def took_s(self, back: int) -> float:
        """How long the step took that was submitted ``back`` steps ago, 1 being the last.

        Steps of the ranks of a lockstep group have the same numbers, so that all ranks between the
        same two steps mean the same one, however far each has waited.

        Returns:
            Seconds, undilated; 0 where the step has not ended, or is long past.
        """
        place = self._submitted - back - self._ended
        return self._took_s[place] if -len(self._took_s) <= place < 0 else 0.0

    def _queue(self, ticket: Ticket) -> None:  # noqa: B027 - a GPU alone tells nobody
        """A step has been submitted."""

    def close(self) -> None:  # noqa: B027 - a GPU alone holds nothing
        """No more steps."""

    @abstractmethod
    def _times_s(self, ticket: Ticket) -> tuple[float, float]:
        """Start and end of a step."""


class IndependentDevice(Device):
    """A GPU that waits for nobody."""

    def _times_s(self, ticket: Ticket) -> tuple[float, float]:
        work = ticket.work
        start_s = self._end_s
        if ticket.begin_s is not None:
            start_s = max(start_s, ticket.begin_s)
        is_mixed = work.prefill_tokens > 0 and work.decode_seqs > 0
        common_s = self._step_time.common_s([work.tokens], is_mixed)
        return start_s, start_s + self._dilation * (ticket.local_s + common_s)
