"""Runs the simulator on a few requests with everything spelled out, for tests of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from dpbal.backends.base import Parts, Records
from dpbal.backends.simulator.layout import State
from dpbal.backends.simulator.run import Run as SimulatorRun
from dpbal.backends.simulator.simulator import Simulator
from dpbal.balancers import Balancer, RoundRobin
from dpbal.budgets import Budget, Fixed
from dpbal.core import LoadTable, Request, View
from dpbal.dispatcher import Dispatcher
from dpbal.indexers import Indexer
from dpbal.ledger import Ledger
from dpbal.modes import GroupKind, LedgerMode
from dpbal.signals import Signal, Sum
from dpbal.step_time import StepTime
from dpbal.transports import Local, Transport
from dpbal.workloads import Requests

LOCKSTEP = GroupKind.lockstep
INDEPENDENT = GroupKind.independent
REQUESTS_IN_FLIGHT = {"requests": 1.0, "in_flight": 1.0}


@dataclass(frozen=True)
class Run:
    """What a simulation left.

    Attributes:
        records: As the backend returned them.
        parts: What it was made of.
        state: The compiled core's memory, as the run left it.
    """

    records: Records
    parts: Parts
    state: State

    @property
    def requests(self) -> np.ndarray:
        """``REQUEST_RECORD[n]``."""
        return self.records.requests

    @property
    def steps(self) -> np.ndarray:
        """``STEP_RECORD[m]``."""
        return self.records.steps

    @property
    def ttft_s(self) -> np.ndarray:
        """``float64[n]``, nan where there was no token."""
        return np.asarray(self.requests["first_token_s"] - self.requests["arrival_s"])

    @property
    def e2e_s(self) -> np.ndarray:
        """``float64[n]``, nan where the request did not end."""
        return np.asarray(self.requests["finish_s"] - self.requests["arrival_s"])


def simulate(
    requests: Requests,
    step_time: StepTime,
    *,
    kind: GroupKind = INDEPENDENT,
    ranks: int = 1,
    dispatchers: int = 1,
    engine: Simulator | None = None,
    balancer: Callable[[], Balancer] = RoundRobin,
    signal: Callable[[], Signal] = lambda: Sum(REQUESTS_IN_FLIGHT),
    mode: LedgerMode = LedgerMode.acknowledge,
    transport: Transport | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    indexer: Callable[[], Indexer] | None = None,
) -> Run:
    """Run ``requests`` on a group, each dispatcher with a balancer and a signal of its own."""
    table = LoadTable(ranks, dispatchers)
    fronts = []
    for number in range(dispatchers):
        rule = balancer()
        rule.start(ranks, seed + number)
        ledger = Ledger(ranks, number, mode=mode)
        index = None if indexer is None else indexer()
        if index is not None:
            index.start(ranks, step_time.kv_capacity_tokens)
        fronts.append(Dispatcher(rule, signal(), ledger, table, step_time, index))
    parts = Parts(
        dispatchers=fronts,
        transport=transport or Local(),
        budget=budget or Fixed(),
        step_time=step_time,
        kind=kind,
        ranks=ranks,
        seed=seed,
    )
    run = SimulatorRun(engine or Simulator(), requests, parts)
    return Run(run.run(None), parts, run.state)


def workload(
    rows: Iterable[tuple[float, int, int]],
    *,
    hashes: Sequence[Sequence[int]] | None = None,
    hash_block_tokens: int = 16,
    pinned: Sequence[int] | None = None,
) -> Requests:
    """Requests from rows of arrival in seconds, prompt tokens and output tokens."""
    arrival_s, prompts, outputs = zip(*rows, strict=True)
    offsets = None
    flat: list[int] = []
    if hashes is not None:
        offsets = np.cumsum([0, *(len(own) for own in hashes)])
        flat = [key for own in hashes for key in own]
    return Requests(
        np.array(arrival_s, np.float64),
        np.array(prompts, np.int64),
        np.array(outputs, np.int64),
        block_hashes=np.array(flat, np.int64),
        hash_offsets=offsets,
        hash_block_tokens=hash_block_tokens,
        pinned_rank=None if pinned is None else np.array(pinned, np.int64),
    )


@dataclass
class Guess(Indexer):
    """Answers what it was told to answer, whatever is true.

    Attributes:
        blocks: How many leading blocks every rank is said to hold of a request's prompt.
    """

    blocks: Callable[[Request], int]

    def start(self, ranks: int, capacity_tokens: int) -> None:
        """Begin."""
        self._ranks = ranks

    def match(self, request: Request) -> np.ndarray:
        """The same for all ranks."""
        return np.full(self._ranks, self.blocks(request))

    def dispatched(self, request: Request, rank: int, now_s: float) -> None:
        """Nothing to learn."""

    def forget(self, rank: int) -> None:
        """Nothing to forget."""

    @property
    def sizes(self) -> np.ndarray:
        """Nothing."""
        return np.zeros(self._ranks, np.int64)


@dataclass
class Probe(Balancer):
    """Sends requests to the first so many ranks in turn, and keeps what it saw each time.

    Attributes:
        turns: Ranks that take part.
        now_s: Times of the decisions.
        reports: A copy of all ranks' reports at each.
        in_flight: A copy of the requests in flight at each.
        cached_tokens: A copy of what each rank was believed to hold of the prompt at each.
        cached_blocks: A copy of the sizes of the indexes at each.
    """

    turns: int = 1
    now_s: list[float] = field(default_factory=list)
    reports: list[np.ndarray] = field(default_factory=list)
    in_flight: list[np.ndarray] = field(default_factory=list)
    cached_tokens: list[np.ndarray] = field(default_factory=list)
    cached_blocks: list[np.ndarray] = field(default_factory=list)

    def choose(self, request: Request, view: View) -> int:
        """The next rank."""
        rank = len(self.now_s) % self.turns
        self.now_s.append(view.now)
        self.reports.append(view.reports.copy())
        self.in_flight.append(view.in_flight.requests.copy())
        self.cached_tokens.append(view.cached_tokens.copy())
        self.cached_blocks.append(view.cached_blocks.copy())
        return rank

    def seen(self, report_field: str, rank: int = 0) -> np.ndarray:
        """A field of a rank's report at each decision."""
        return np.array([reports[rank][report_field] for reports in self.reports])
