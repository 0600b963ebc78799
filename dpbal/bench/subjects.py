"""What the dispatch benchmark times: dpbal's own dispatchers, and the loop that vLLM has."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from typing import Any, Protocol

from dpbal.bench.traffic import RankLoad
from dpbal.config import Config
from dpbal.core import Placement, Request
from dpbal.experiment import build_parts

VLLM_LOOP = "vllm formula (plain Python loop)"


class Subject(Protocol):
    """Something that gives requests a rank; only ``dispatch`` is timed."""

    def dispatch(self, request: Request, now: float, /) -> Any:
        """Choose a rank at ``now`` seconds, and remember that the request is there."""

    def rank_of(self, placed: Any) -> int:
        """The rank that ``dispatch`` chose, from what it returned."""

    def publish(self, rank: int, load: RankLoad) -> None:
        """A rank's report arrives; it has received everything that it was sent."""

    def finish(self, request: Request) -> None:
        """A request has ended."""


class DispatcherSubject:
    """A dispatcher of dpbal, as a config describes it.

    Args:
        config: Any; its balancer, signal and ledger count.
        ranks: Number of ranks in place of the config's.
    """

    def __init__(self, config: Config, ranks: int) -> None:
        parts = build_parts(replace(config, group=replace(config.group, ranks=ranks)))
        self._dispatcher = parts.dispatchers[0]
        self._table = self._dispatcher.table
        self._sent = [0] * ranks
        self.dispatch = self._dispatcher.dispatch
        self._table.received_epoch[:] = self._dispatcher.ledger.epoch
        self._table.reports["epoch"] = 1
        self._table.reports["version"] = 1
        self._table.update_selectable()

    def rank_of(self, placed: Placement) -> int:
        """The chosen rank; what was sent there will be acknowledged by its next report."""
        self._sent[placed.rank] = placed.sequence
        return placed.rank

    def publish(self, rank: int, load: RankLoad) -> None:
        """Write the report into the table, as a transport would."""
        table = self._table
        report = table.reports[rank]
        report["version"] += 1
        report["running"] = load.running
        report["waiting"] = load.waiting
        report["holding_tokens"] = load.held_tokens + load.waiting_tokens
        report["waiting_tokens"] = load.waiting_tokens
        report["kv_used_tokens"] = load.held_tokens
        report["kv_capacity_tokens"] = load.kv_capacity_tokens
        report["prefill_s"] = load.prefill_s
        report["decode_seqs"] = load.running
        report["decode_s"] = load.decode_s
        table.received_sequence[rank, 0] = self._sent[rank]
        table.generation += 1

    def finish(self, request: Request) -> None:
        """Release the request."""
        self._dispatcher.finish(request.id)


class VllmLoop:
    """What vLLM 0.32's front end does for each request, as plain Python.

    For every engine, from a start that moves on by one each time: the greater of this client's own
    unfinished requests times the number of clients, and the reported waiting + running; plus, where
    requests wait, ``6 * waiting * max(0, kv_usage - 0.5)``. The first smallest gets the request,
    and its waiting count goes up by the number of clients until its next report.

    Engines have byte strings as identities and counts are kept by them in a ``Counter``, as in
    vLLM, because that is part of what its loop costs. Left out: the look-up for late-interaction
    pooling models.

    Reference: vLLM 0.32, ``v1/engine/core_client.py``, ``DPLBAsyncMPClient``.
    """

    def __init__(self, ranks: int, clients: int = 1) -> None:
        self.clients = clients
        self.engines = [rank.to_bytes(2, "little") for rank in range(ranks)]
        self.counts: list[list[Any]] = [[0, 0, 0.0] for _ in range(ranks)]
        self.unfinished: Counter[bytes] = Counter()
        self.engine_of: dict[int | str, bytes] = {}
        self.start = 0

    def dispatch(self, request: Request, now: float, /) -> bytes:
        """Choose an engine and count the request there."""
        known = self.engine_of.get(request.id)
        if known is not None:
            return known
        chosen = request.pinned_rank
        if chosen is None:
            counts = self.counts
            engines = len(counts)
            chosen = 0
            lowest: float = sys.maxsize
            for step in range(engines):
                rank = (self.start + step) % engines
                waiting, running, kv_usage = counts[rank]
                own = self.clients * self.unfinished[self.engines[rank]]
                score: float = max(own, waiting + running)
                if waiting:
                    score += 6.0 * waiting * max(0.0, kv_usage - 0.5)
                if score < lowest:
                    lowest, chosen = score, rank
            counts[chosen][0] += self.clients
            self.start = (self.start + 1) % engines
        engine = self.engines[chosen]
        self.engine_of[request.id] = engine
        self.unfinished[engine] += 1
        return engine

    def rank_of(self, placed: bytes) -> int:
        """The engine's number."""
        return int.from_bytes(placed, "little")

    def publish(self, rank: int, load: RankLoad) -> None:
        """New counts take the place of the old ones."""
        usage = load.held_tokens / load.kv_capacity_tokens
        self.counts[rank] = [load.waiting, load.running, usage]

    def finish(self, request: Request) -> None:
        """Count the request no longer."""
        engine = self.engine_of.pop(request.id, None)
        if engine is not None:
            self.unfinished[engine] -= 1
