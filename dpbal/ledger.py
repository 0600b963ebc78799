"""What one dispatcher has in flight: charged at dispatch, covered, released exactly once."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, cast

import msgspec
import numpy as np

from dpbal.core import LoadTable, Request
from dpbal.modes import LedgerMode as LedgerMode


class InFlight(NamedTuple):
    """In flight for each rank, in the units a signal or a balancer may use.

    Attributes:
        requests: ``int64[ranks]``.
        tokens: ``int64[ranks]``, prompt tokens.
        prefill_s: ``float64[ranks]``, seconds of prefill, without the prefix hits that were
            expected.
        prefill_tokens: ``int64[ranks]``, the tokens of it.
    """

    requests: np.ndarray
    tokens: np.ndarray
    prefill_s: np.ndarray
    prefill_tokens: np.ndarray


class _Dispatch(msgspec.Struct, gc=False):
    sequence: int
    request_id: int | str
    rank: int
    tokens: int
    prefill_s: float
    prefill_tokens: int
    is_covered: bool = False
    has_ended: bool = False


class Ledger:
    """Dispatches of one dispatcher that are not covered by a report, and those that have not ended.

    Every dispatch gets the next 64-bit sequence number. Requests of one dispatcher reach one rank
    in order, so a rank's acknowledgement is the highest sequence it has received.

    Args:
        ranks: Number of ranks in the group.
        dispatcher: This dispatcher's column in the acknowledgement table.
        epoch: Start of this dispatcher's process; acknowledgements under another are ignored.
        mode: What a newer report does to dispatches that it does not cover.

    Attributes:
        in_flight: Totals per rank, to read only.
        outstanding: ``int64[ranks]``, requests dispatched and not released.
        sequence: Number of the last dispatch, 0 before the first.
        ended_uncovered: Dispatches that ended before a report covered them.
        forgotten: Those that were in flight to a rank whose process ended.
        unknown_releases: Releases of ids that were not outstanding; ignored, and counted here.
    """

    def __init__(
        self,
        ranks: int,
        dispatcher: int = 0,
        epoch: int = 1,
        mode: LedgerMode = LedgerMode.acknowledge,
    ) -> None:
        self.dispatcher = dispatcher
        self.epoch = epoch
        self.mode = mode
        counts = np.zeros((3, ranks), np.int64)
        self.in_flight = InFlight(counts[0], counts[1], np.zeros(ranks), counts[2])
        self.outstanding = np.zeros(ranks, np.int64)
        self.sequence = 0
        self.ended_uncovered = self.forgotten = 0
        self.unknown_releases = 0
        self._uncovered: list[deque[_Dispatch]] = [deque() for _ in range(ranks)]
        self._dispatches: dict[int | str, _Dispatch] = {}
        # one element of a memoryview costs half of what it costs in numpy
        self._requests = self.in_flight.requests.data
        self._tokens = self.in_flight.tokens.data
        self._prefill_s = cast("memoryview[float]", self.in_flight.prefill_s.data)
        self._prefill_tokens = self.in_flight.prefill_tokens.data
        self._outstanding = self.outstanding.data
        self._overwrites = mode is LedgerMode.overwrite
        self._generation = -1
        self._table: LoadTable | None = None

        # numba is slow to import, and whoever only imports dpbal has nothing in flight
        from dpbal.coverage import RESTARTED, acknowledged, reported

        self._acknowledged = acknowledged
        self._reported = reported
        self._restarted = RESTARTED
        self._seen_epochs = np.zeros(ranks, np.int64)
        self._seen = np.zeros(ranks, np.int64)
        self._found = np.zeros(ranks, np.int64)
        self._found_ranks = self._found.data

    @property
    def covered(self) -> int:
        """Dispatches that a report has covered: all that left in another way are counted."""
        in_flight = int(self.in_flight.requests.sum())
        return self.sequence - in_flight - self.ended_uncovered - self.forgotten

    def charge(self, request: Request, rank: int, prefill_s: float, cached_tokens: int = 0) -> int:
        """Put a request in flight to ``rank`` and return its sequence number.

        Args:
            request: Which.
            rank: Where it goes.
            prefill_s: Seconds of prefill that it needs there.
            cached_tokens: Tokens of its prompt that it needs none for.

        Raises:
            ValueError: If the id is outstanding already.
        """
        if request.id in self._dispatches:
            raise ValueError(f"request {request.id!r} is outstanding already")
        self.sequence += 1
        tokens = request.prompt_tokens
        missing = tokens - cached_tokens
        dispatch = _Dispatch(self.sequence, request.id, rank, tokens, prefill_s, missing)
        self._dispatches[request.id] = dispatch
        self._uncovered[rank].append(dispatch)
        self._requests[rank] += 1
        self._tokens[rank] += tokens
        self._prefill_s[rank] += prefill_s
        self._prefill_tokens[rank] += missing
        self._outstanding[rank] += 1
        return self.sequence

    def observe(self, table: LoadTable) -> Sequence[int]:
        """Take in the newest reports: cover what they acknowledge, drop what died with a rank.

        Returns:
            Ranks that have been started anew since the last time.
        """
        if table is not self._table:
            self._watch(table)
        generation = table.generation.item()
        restarted: Sequence[int] = ()
        if generation == self._generation:
            return restarted
        self._generation = generation
        count = self._find_covered(table)
        if count == self._restarted:
            restarted = self._drop_restarted(table)
            count = self._find_covered(table)
        for k in range(count):
            rank = self._found_ranks[k]
            self._cover(rank, self.sequence if self._overwrites else self._received[rank])
        return restarted

    def release(self, request_id: int | str) -> None:
        """A request has ended, however it ended. An id that is not outstanding is only counted."""
        dispatch = self._dispatches.pop(request_id, None)
        if dispatch is None:
            self.unknown_releases += 1
            return
        dispatch.has_ended = True
        self._outstanding[dispatch.rank] -= 1
        if not dispatch.is_covered:  # ended before any report covered it
            self.ended_uncovered += 1
            self._subtract(dispatch)
            queue = self._uncovered[dispatch.rank]
            while queue and queue[0].has_ended:
                queue.popleft()

    def forget(self, rank: int) -> None:
        """A rank's process has ended: nothing it was sent is in flight or outstanding any more."""
        self.forgotten += self._requests[rank]
        self._cover(rank, self.sequence)
        gone = [d.request_id for d in self._dispatches.values() if d.rank == rank]
        for request_id in gone:
            del self._dispatches[request_id]
        self._outstanding[rank] = 0

    def _watch(self, table: LoadTable) -> None:
        self._table = table
        self._generation = -1
        self._received_column = table.received_sequence[:, self.dispatcher]
        self._received_epochs = table.received_epoch[:, self.dispatcher]
        self._received = self._received_column.data

    def _find_covered(self, table: LoadTable) -> int:
        epochs, seen, found = self._seen_epochs, self._seen, self._found
        count: int
        if self._overwrites:
            requests = self.in_flight.requests
            count = self._reported(table.integers, requests, epochs, seen, found)
        else:
            received, received_epochs = self._received_column, self._received_epochs
            count = self._acknowledged(
                table.integers, received_epochs, received, self.epoch, epochs, seen, found
            )
        return count

    def _drop_restarted(self, table: LoadTable) -> list[int]:
        epochs = table.reports["epoch"]
        is_restarted = (epochs != self._seen_epochs) & (self._seen_epochs != 0)
        restarted: list[int] = is_restarted.nonzero()[0].tolist()
        for rank in restarted:
            self.forget(rank)
        self._seen_epochs[:] = epochs
        return restarted

    def _cover(self, rank: int, sequence: int) -> None:
        queue = self._uncovered[rank]
        while queue and queue[0].sequence <= sequence:
            dispatch = queue.popleft()
            if not dispatch.has_ended:  # else it was subtracted when it was released
                dispatch.is_covered = True
                self._subtract(dispatch)

    def _subtract(self, dispatch: _Dispatch) -> None:
        rank = dispatch.rank
        requests = self._requests[rank] - 1
        self._requests[rank] = requests
        if requests == 0:  # sums of floats drift; an empty rank is exactly empty
            self._tokens[rank] = 0
            self._prefill_s[rank] = 0
            self._prefill_tokens[rank] = 0
            return
        self._tokens[rank] -= dispatch.tokens
        self._prefill_s[rank] -= dispatch.prefill_s
        self._prefill_tokens[rank] -= dispatch.prefill_tokens
