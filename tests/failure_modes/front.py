"""What a front end and its ranks do to a balancer, and dpbal's own objects behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol

import numpy as np

from dpbal.balancers import BALANCERS
from dpbal.core import LoadTable, Request
from dpbal.dispatcher import Dispatcher
from dpbal.indexers import INDEXERS
from dpbal.ledger import Ledger
from dpbal.modes import LedgerMode
from dpbal.signals import SIGNALS
from dpbal.step_time import StepTime

Ending = Literal["finished", "aborted", "rejected", "disconnected", "timed out"]

ENDINGS: tuple[Ending, ...] = ("finished", "aborted", "rejected", "disconnected", "timed out")

BLOCK_TOKENS = 100

STEP_TIME = StepTime(prefill_s_per_token=1e-4, decode_s_per_seq=1e-4)


class Front(Protocol):
    """A balancer as its front end sees it; requests are numbers."""

    def __init__(self, ranks: int) -> None: ...

    def dispatch(
        self,
        number: int,
        tokens: int = 100,
        *,
        pinned_rank: int | None = None,
        prefix: int | None = None,
        now_s: float = 0.0,
    ) -> int:
        """Choose a rank; equal prefixes are equal prompts, of whole blocks."""

    def end(self, number: int, how: Ending = "finished") -> None:
        """The front end hears that a request has ended."""

    def report(
        self,
        rank: int,
        tokens: int = 0,
        *,
        received: Sequence[int] = (),
        resident_tokens: int = 0,
        requests: int = 0,
        now_s: float = 0.0,
    ) -> None:
        """A rank's report arrives.

        Args:
            rank: Whose.
            tokens: Of prompts that it has not begun with.
            received: Requests that it has received since its last report.
            resident_tokens: In its KV cache, of requests that decode.
            requests: That decode.
            now_s: Time.
        """

    def gone(self, rank: int) -> None:
        """A rank's process has ended."""

    def probe(self) -> None:
        """Somebody asks each rank whether it is well, by a request that ends at once."""


class Dpbal:
    """dpbal's dispatcher, ledger and table of reports, as its front ends have them."""

    balancer = "minimum_tokens"
    terms: ClassVar[dict[str, float]] = {"holding_tokens": 1.0, "in_flight": 1.0}
    mode = LedgerMode.acknowledge

    def __init__(self, ranks: int) -> None:
        self.table = LoadTable(ranks)
        rule = BALANCERS.build(self.balancer, {})
        rule.start(ranks, seed=0)
        indexer = None
        if rule.uses_prefixes:
            indexer = INDEXERS.build("own_record", {})
            indexer.start(ranks, 10_000_000)
        signal = SIGNALS.build("sum", {"terms": self.terms})
        self.dispatcher = Dispatcher(
            rule, signal, Ledger(ranks, mode=self.mode), self.table, STEP_TIME, indexer
        )
        self._sequences: dict[int, int] = {}

    def dispatch(
        self,
        number: int,
        tokens: int = 100,
        *,
        pinned_rank: int | None = None,
        prefix: int | None = None,
        now_s: float = 0.0,
    ) -> int:
        hashes = None if prefix is None else prefix + np.arange(tokens // BLOCK_TOKENS)
        request = Request(
            number, now_s, tokens, None, hashes, None, pinned_rank, block_tokens=BLOCK_TOKENS
        )
        placement = self.dispatcher.dispatch(request, now_s)
        self._sequences[number] = placement.sequence
        return placement.rank

    def end(self, number: int, how: Ending = "finished") -> None:
        self.dispatcher.finish(number)

    def report(
        self,
        rank: int,
        tokens: int = 0,
        *,
        received: Sequence[int] = (),
        resident_tokens: int = 0,
        requests: int = 0,
        now_s: float = 0.0,
    ) -> None:
        row = self.table.reports[rank]
        row["epoch"] = 1
        row["version"] += 1
        row["time_s"] = now_s
        row["running"] = row["decode_seqs"] = requests
        row["decode_s"] = requests * STEP_TIME.decode_s_per_seq
        row["holding_tokens"] = tokens + resident_tokens
        row["kv_used_tokens"] = resident_tokens
        row["waiting_tokens"] = row["prefill_tokens"] = tokens
        row["prefill_s"] = tokens * STEP_TIME.prefill_s_per_token
        sequences = [self._sequences[number] for number in received if number in self._sequences]
        self.table.received_epoch[rank, 0] = 1
        known = self.table.received_sequence.item(rank, 0)
        self.table.received_sequence[rank, 0] = max([known, *sequences])
        self.table.update_selectable()

    def gone(self, rank: int) -> None:
        self.table.set_available(rank, False)

    def probe(self) -> None:
        for rank in range(self.table.ranks):
            self.dispatch(-1, 1, pinned_rank=rank)
            self.end(-1)


class ByRequests(Dpbal):
    """By number of requests."""

    balancer = "fewest_requests"
    terms: ClassVar[dict[str, float]] = {"requests": 1.0, "in_flight": 1.0}


class ByOutstanding(Dpbal):
    """By the requests that have not ended, and those that ranks report."""

    balancer = "vllm"


class ByPrefill(Dpbal):
    """By seconds of prefill."""

    balancer = "least_prefill"
    terms: ClassVar[dict[str, float]] = {"prefill_work": 1.0, "in_flight": 1.0}


class ByPrefix(ByPrefill):
    """By seconds of prefill and decoding, and by what ranks hold."""

    balancer = "marginal_prefill"
    terms: ClassVar[dict[str, float]] = {
        "prefill_work": 1.0,
        "in_flight": 1.0,
        "decode_load": 200.0,
    }


class ByRing(Dpbal):
    """By a hash of the prefix, with a bound."""

    balancer = "consistent_hash"


class InTurn(Dpbal):
    """Round robin."""

    balancer = "round_robin"


class Overwriting(Dpbal):
    """With ``ledger.mode=overwrite``, which dpbal has to compare with."""

    mode = LedgerMode.overwrite


def spread(ranks: Sequence[int], of: int) -> list[int]:
    """How many requests each rank has been given."""
    counts: list[int] = np.bincount(ranks, minlength=of).tolist()
    return counts
