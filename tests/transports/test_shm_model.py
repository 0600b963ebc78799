"""Whatever ranks do in whatever order, a dispatcher's table is what the newest of each says."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dpbal.core import LoadTable
from dpbal.transports import Shm
from dpbal.transports.shm.transport import ShmPublisher

RANKS = st.integers(0, 2)


@dataclass
class Rank:
    publisher: ShmPublisher | None = None
    version: int = 0
    running: int = 0
    received: int = 0
    closed: bool = False


class Machine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.exchange = Shm().create(3, 1)
        self.table = LoadTable(3)
        self.subscriber = Shm().subscriber(self.exchange.address, self.table)
        self.ranks = [Rank() for _ in range(3)]
        self.epochs = [0, 0, 0]

    @rule(rank=RANKS)
    def start(self, rank: int) -> None:
        if self.ranks[rank].publisher is None:
            self.ranks[rank] = Rank(Shm().publisher(self.exchange.address, rank))

    @rule(rank=RANKS, running=st.integers(0, 2**62), received=st.integers(0, 2**62))
    def publish(self, rank: int, running: int, received: int) -> None:
        known = self.ranks[rank]
        if known.publisher is not None:
            known.publisher.report["running"] = running
            known.publisher.received_sequence[0] = received
            known.publisher.publish()
            known.version += 1
            known.running, known.received = running, received

    @rule(rank=RANKS)
    def close(self, rank: int) -> None:
        known = self.ranks[rank]
        if known.publisher is not None:
            known.publisher.close()
            known.publisher, known.closed = None, True

    @rule()
    def another_dispatcher(self) -> None:
        self.table = LoadTable(3)
        self.subscriber = Shm().subscriber(self.exchange.address, self.table)

    @invariant()
    def table_is_right(self) -> None:
        if not hasattr(self, "ranks"):
            return
        self.subscriber.refresh()
        reports = self.table.reports
        assert reports["version"].tolist() == [known.version for known in self.ranks]
        assert reports["running"].tolist() == [known.running for known in self.ranks]
        received = self.table.received_sequence[:, 0].tolist()
        assert received == [known.received for known in self.ranks]
        open_ranks = [not known.closed for known in self.ranks]
        reporting = [not known.closed and known.version > 0 for known in self.ranks]
        best = next((s for s in (reporting, open_ranks) if any(s)), [True] * 3)
        assert self.table.selectable.tolist() == best
        for rank, epoch in enumerate(reports["epoch"].tolist()):
            assert epoch >= self.epochs[rank]
            self.epochs[rank] = epoch

    def teardown(self) -> None:
        for known in self.ranks:
            if known.publisher is not None:
                known.publisher.close()
        self.exchange.close()


TestTable = Machine.TestCase
TestTable.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
