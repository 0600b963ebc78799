"""The records every flow passes: a request, the table of load reports, what a balancer sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from dpbal.ledger import InFlight
    from dpbal.signals.base import Signal, Unit
    from dpbal.step_time import StepTime

REPORT = np.dtype(
    [
        ("epoch", np.int64),  # start of the rank's process; a new number is a new process
        ("version", np.int64),  # counts this rank's reports from 1; 0 is "no report yet"
        ("time_s", np.float64),
        ("running", np.int64),  # requests in the batch
        ("waiting", np.int64),  # requests received and not yet in the batch
        ("holding_tokens", np.int64),  # prompt + generated, over waiting and running requests
        ("waiting_tokens", np.int64),  # prompt + generated, over waiting requests
        ("kv_used_tokens", np.int64),  # KV slots that cannot be evicted, whole blocks
        ("kv_capacity_tokens", np.int64),
        ("prefill_tokens", np.int64),  # tokens still to prefill, waiting and running
        ("prefill_s", np.float64),  # the same as seconds of the rank's own time
        ("decode_seqs", np.int64),  # running requests whose prompt is done
        ("decode_s", np.float64),  # seconds their next token takes, without the fixed part
        ("oldest_wait_s", np.float64),  # age of the oldest request without a first token
    ]
)
"""One load report: a fixed-size record, the same in shared memory, a gather and the simulator."""

VECTOR = np.dtype(
    [
        ("decode_s", np.float64),  # local seconds of the decodes this rank has, 0 for none
        ("decode_seqs", np.int64),
        ("prefill_s", np.float64),  # queued prefill seconds that slots and KV would admit
        ("prefill_tokens", np.int64),  # the tokens of it
        (
            "prefill_requests",
            np.int64,
        ),  # admissible requests with prefill to do, preempted ones too
        ("wait_s", np.float64),  # ages of those without a first token, added up
        ("oldest_wait_s", np.float64),  # age of the oldest of them
        (
            "capacity_bound",
            np.int64,
        ),  # 1 where a step without a limit of tokens left requests waiting
        ("step_s", np.float64),  # how long the last step took the group, 0 before the first
        ("done_prefill_s", np.float64),  # what the profile says its prefill in that step took
        ("done_decode_s", np.float64),  # and its decodes
        ("done_tokens", np.int64),  # tokens of both
    ]
)
"""What one rank tells the others before a step. Every rank uses the same version of all of them."""


def column(field: str, record: np.dtype = REPORT) -> int:
    """Place of a field among the words of a record; in a ``LoadTable`` it is a column."""
    return (record.names or ()).index(field)


class Request(msgspec.Struct, frozen=True, gc=False):
    """What a router could know of a request when it arrives.

    The true output length is not here: backends know it, balancers do not.

    Attributes:
        id: Unique among the requests of one run.
        arrival_s: Seconds since the start of the run.
        prompt_tokens: Length of the prompt.
        max_tokens: The most tokens the client asked for, or None where that is not known, as in
            traces; never the true length.
        block_hashes: ``int64[blocks]``, one hash for each whole prefix block of the prompt, or None
            where nothing is known. Equal hashes mean that all tokens up to there are equal.
        block_tokens: Tokens that one hash stands for.
        session: Conversation the request belongs to, or None.
        pinned_rank: Rank the client demands, or None.
    """

    id: int | str
    arrival_s: float
    prompt_tokens: int
    max_tokens: int | None = None
    block_hashes: np.ndarray | None = None
    session: int | str | None = None
    pinned_rank: int | None = None
    block_tokens: int = 512


class Placement(msgspec.Struct, frozen=True, gc=False):
    """Where a request goes, its place in the order of its dispatcher, and what is expected of it.

    Attributes:
        rank: Where it goes.
        sequence: Its place in the order.
        cached_tokens: Tokens of its prompt that the dispatcher believes the rank to hold; the rank
            counts only the others as queued prefill, until it knows better.
    """

    rank: int
    sequence: int
    cached_tokens: int = 0


class LoadTable:
    """The newest report of every rank, as one dispatcher can see it.

    Beside the reports stands the acknowledgement table: for each rank and dispatcher the highest
    sequence number that rank has received, and under which epoch of the dispatcher.

    Whoever writes a report also raises ``generation``; readers compare that number instead of
    the reports. A rank that has not reported yet is *missing*, which is not the same as idle: it
    is not selectable while another rank has reported.

    Args:
        ranks: Number of ranks in the group.
        dispatchers: Number of dispatchers in front of it.

    Attributes:
        reports: ``REPORT[ranks]``.
        integers: The same memory as ``int64[ranks, fields]``, for compiled code, which takes plain
            arrays faster than records; read a field with ``column``.
        floats: The same memory as ``float64[ranks, fields]``.
        received_epoch: ``int64[ranks, dispatchers]``, epoch of the dispatcher that was heard.
        received_sequence: ``int64[ranks, dispatchers]``, highest sequence received, 0 for none.
        selectable: ``bool[ranks]``, ranks that may be chosen.
        generation: ``int64[1]``, raised with every change of the above.
    """

    def __init__(self, ranks: int, dispatchers: int = 1) -> None:
        self.reports = np.zeros(ranks, REPORT)
        self.integers = self.reports.view(np.int64).reshape(ranks, -1)
        self.floats = self.reports.view(np.float64).reshape(ranks, -1)
        self.received_epoch = np.zeros((ranks, dispatchers), np.int64)
        self.received_sequence = np.zeros((ranks, dispatchers), np.int64)
        self.selectable = np.ones(ranks, np.bool_)
        self.generation = np.zeros(1, np.int64)
        self._available = np.ones(ranks, np.bool_)
        self._present = np.ones(ranks, np.bool_)

    @property
    def ranks(self) -> int:
        """Number of ranks in the group."""
        return len(self.reports)

    @property
    def present(self) -> np.ndarray:
        """``bool[ranks]``, ranks whose processes are there, to read only."""
        return self._present

    def set_available(self, rank: int, available: bool) -> None:
        """Take a draining rank out of the choice, or bring it back."""
        self._available[rank] = available
        self.update_selectable()

    def set_present(self, present: np.ndarray) -> None:
        """Say which ranks' processes are there, ``bool[ranks]``; others are not chosen either."""
        if (present != self._present).any():
            self._present[:] = present
            self.update_selectable()

    def update_selectable(self) -> None:
        """Recompute ``selectable`` after a rank's first report or a change of availability.

        The best non-empty set wins: ranks that are available, there and have reported; that are
        available and there; that are there; all.
        """
        available = self._available & self._present
        reported = available & (self.reports["version"] > 0)
        for candidates in (reported, available, self._present):
            if candidates.any():
                self.selectable[:] = candidates
                break
        else:
            self.selectable[:] = True
        self.generation += 1


class View:
    """What a balancer sees at one decision: reports, what is in flight, and the signal's numbers.

    Attributes:
        now: Seconds on the backend's clock.
        reports: ``REPORT[ranks]``, the newest that have arrived.
        integers: The reports as ``LoadTable.integers``.
        floats: The reports as ``LoadTable.floats``.
        in_flight: Dispatched here and not yet covered by a report.
        outstanding: ``int64[ranks]``, requests of this dispatcher that have not ended.
        selectable: ``bool[ranks]``, ranks that may be chosen.
        step_time: The cost model of the ranks.
        dispatchers: Number of dispatchers in front of the group.
        cached_tokens: ``int64[ranks]``, leading tokens of the request's prompt that each rank is
            believed to hold; empty where the balancer does not use prefixes.
        own_prefill_s: ``float64[ranks]``, seconds of prefill that the request still needs on each
            rank with these; empty likewise.
        cached_blocks: ``int64[ranks]``, prefix blocks of any request that each rank is believed to
            hold; empty likewise.
    """

    __slots__ = (
        "_signal",
        "cached_blocks",
        "cached_tokens",
        "dispatchers",
        "floats",
        "in_flight",
        "integers",
        "now",
        "outstanding",
        "own_prefill_s",
        "reports",
        "selectable",
        "step_time",
    )

    def __init__(
        self,
        table: LoadTable,
        in_flight: InFlight,
        outstanding: np.ndarray,
        signal: Signal,
        step_time: StepTime,
    ) -> None:
        self.now = 0.0
        self.reports = table.reports
        self.integers = table.integers
        self.floats = table.floats
        self.in_flight = in_flight
        self.outstanding = outstanding
        self.selectable = table.selectable
        self.step_time = step_time
        self.dispatchers = table.received_sequence.shape[1]
        self.cached_tokens = np.zeros(0, np.int64)
        self.own_prefill_s = np.zeros(0)
        self.cached_blocks = np.zeros(0, np.int64)
        self._signal = signal

    @property
    def ranks(self) -> int:
        """Number of ranks in the group."""
        return len(self.reports)

    @property
    def unit(self) -> Unit:
        """What ``loads`` count."""
        return self._signal.counts

    @property
    def loads(self) -> np.ndarray:
        """``float64[ranks]``: the signal's number for each rank, lower is freer. Do not write."""
        return self._signal.load(self)
