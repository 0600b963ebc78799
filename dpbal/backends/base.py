"""What every backend is: a place where requests run, and the records it leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from dpbal.budgets.base import Budget
from dpbal.dispatcher import Dispatcher
from dpbal.modes import GroupKind
from dpbal.registry import Registry
from dpbal.step_time import StepTime
from dpbal.transports.base import Transport
from dpbal.workloads.base import Requests

if TYPE_CHECKING:
    from dpbal.backends.simulator.simulator import Simulator


class Outcome(IntEnum):
    """How a request ended."""

    unfinished = 0
    finished = 1
    failed = 2
    aborted = 3


REQUEST_RECORD = np.dtype(
    [
        ("arrival_s", np.float64),
        ("dispatch_s", np.float64),  # nan where the run ended before
        ("first_token_s", np.float64),  # nan where there was none
        ("finish_s", np.float64),  # nan where it did not end
        ("rank", np.int32),  # -1 where the run ended before a choice, null in the file
        ("dispatcher", np.int32),  # -1 where none has chosen a rank
        ("prompt_tokens", np.int32),
        ("output_tokens", np.int32),  # generated
        ("cached_tokens", np.int32),  # of the prompt, found in the rank's prefix cache
        ("preemptions", np.int32),
        ("outcome", np.int8),
    ]
)
"""One row a request, whatever became of it."""

STEP_RECORD = np.dtype(
    [
        ("start_s", np.float64),
        ("end_s", np.float64),
        ("local_s", np.float64),  # the rank's own part of the step, 0 for an idle rank
        ("rank", np.int32),
        ("prefill_tokens", np.int32),
        ("decode_seqs", np.int32),
        ("next_tokens", np.int32),  # tokens emitted one step after the one before them
        ("running", np.int32),
        ("waiting", np.int32),
        ("preemptions", np.int32),
        ("kv_used_tokens", np.int64),
    ]
)
"""One row a step and rank."""


@dataclass(frozen=True)
class Emulation:
    """Real engines on emulated GPUs.

    Attributes:
        engines: What they are, with the version.
        dilation: How many times slower than the profile everything happened.
        late_share: Share of the steps whose host came for the result too late; where it is not
            small, the host was too slow, and the times are not the profile's.
        alone_share: Share of the steps in which a rank did not know the others' vectors, and kept
            to what its budget holds to be safe alone; None where the budget needs no vectors.
        engine_prefix_hit_share: Prompt tokens found in the prefix cache, over those looked up
            there, as the engines count themselves: each request at its first admission. None where
            nothing was looked up.
    """

    engines: str
    dilation: float
    late_share: float
    alone_share: float | None = None
    engine_prefix_hit_share: float | None = None


@dataclass(frozen=True)
class Records:
    """What happened in a run.

    Attributes:
        requests: ``REQUEST_RECORD[n]``, in order of arrival.
        steps: ``STEP_RECORD[m]``, in order of time.
        late_gaps_s: Seconds between two tokens of a request where other steps came between them.
        decision_ns: Nanoseconds of each dispatch.
        wall_s: Seconds the run took, compilation apart.
        ranks: Number of ranks in the group.
        kind: How they step.
        emulation: How real engines were emulated; None in the simulator.
    """

    requests: np.ndarray
    steps: np.ndarray
    late_gaps_s: np.ndarray
    decision_ns: np.ndarray
    wall_s: float
    ranks: int
    kind: GroupKind
    emulation: Emulation | None = None


@dataclass(frozen=True)
class Parts:
    """Everything of one combination that a backend drives.

    Attributes:
        dispatchers: Front ends; a request goes through the one of its number.
        transport: How reports travel.
        budget: How much prefill a rank may do.
        step_time: The cost model.
        kind: How the ranks step.
        ranks: Number of ranks.
        seed: For whatever the backend draws.
    """

    dispatchers: Sequence[Dispatcher]
    transport: Transport
    budget: Budget
    step_time: StepTime
    kind: GroupKind
    ranks: int
    seed: int


@dataclass
class Backend(ABC):
    """A place where requests run."""

    def check(self) -> None:  # noqa: B027 - most need nothing
        """Refuse, before anything runs, where this machine lacks what it needs.

        Raises:
            MissingExtraError: With what to install.
        """

    @abstractmethod
    def simulator(self) -> Simulator:
        """The simulator of the same engines, for the pooled reference and the rate of a load."""

    def baseline(self) -> Backend:
        """The same engines without a rule of their own for prefill, to be compared with."""
        return self

    @abstractmethod
    def run(
        self, requests: Requests, parts: Parts, progress: Callable[[int], None] | None = None
    ) -> Records:
        """Run all requests and return what happened.

        Args:
            requests: In order of arrival.
            parts: The combination.
            progress: Told now and then how many requests have been dispatched.
        """


BACKENDS: Registry[Backend] = Registry("backend")
