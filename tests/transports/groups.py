"""Groups whose ranks are processes, over any transport, and what each transport is known to do."""

from __future__ import annotations

import importlib.util
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dpbal.core import LoadTable
from dpbal.transports import TRANSPORTS, Exchange, ProcessTransport, Subscriber
from tests.transports.processes import Process

PATIENCE_S = 30.0
"""Seconds after which what has not arrived fails a test."""

LOOK_S = 0.005

GATHER_S, HURRIED_S = 10.0, 3.0
"""Seconds that ranks wait for one that does not come; the second where a test waits for it."""

ITERATIONS = 100

SLOW_S = 0.3
"""Seconds after which a rank that publishes has waited for somebody, or for a processor."""

FEW = ITERATIONS // 10
"""So often a rank may wait: for whoever is hit once or twice, and now and then for a processor."""

GOES_ON = f"""
import time
def go_on(first, running):
    slow = 0
    for k in range({ITERATIONS}):
        began_s = time.monotonic()
        p.report["running"] = running + k
        p.publish()
        p.step(first + k)
        slow += time.monotonic() - began_s > {SLOW_S}
    return slow
"""

HEARS = """
from dpbal.backends.vllm.acknowledgement import Dispatched, acknowledge
def hear(*dispatched):
    acknowledge(Dispatched(*dispatched), p.received_epoch, p.received_sequence)
"""
"""What a rank does with the dispatch of a request that it receives."""


@dataclass(frozen=True)
class Case:
    """A transport as configured, and where it does less than ``shm``.

    Attributes:
        name: Of the case.
        transport: Its registered name.
        settings: Its fields.
        modules: What it needs that may not be installed.
        is_at_once: A look takes in all that was published before it. Else it arrives soon.
        outlives_rank: When a rank has gone, reports of the others still arrive, and its new process
            may join them. Else dispatchers keep what they have.
        outlives_stopped: Reports arrive while a rank or a dispatcher is stopped. Else it may have
            what all others need, and they arrive again when it goes on or is killed.
        outlives_owner: When the owner has gone, reports still arrive. Else likewise.
        gone_s: Seconds after which a rank that was killed is not chosen.
        sees_stopped: A rank that is stopped is not chosen. Else only one that has ended is not.
    """

    name: str
    transport: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    is_at_once: bool = True
    outlives_rank: bool = True
    outlives_stopped: bool = True
    outlives_owner: bool = True
    gone_s: float = 1.0
    sees_stopped: bool = False

    def build(self) -> ProcessTransport:
        transport = TRANSPORTS.build(self.transport, self.settings)
        assert isinstance(transport, ProcessTransport)
        return transport

    @property
    def hurried(self) -> Case:
        """The same, for a test that waits until ranks have waited for one that does not come."""
        if "timeout_s" not in self.settings:
            return self
        return replace(self, settings={**self.settings, "timeout_s": HURRIED_S})

    @property
    def code(self) -> str:
        """What a process runs to have the transport as ``t``."""
        build = f"t = TRANSPORTS.build({self.transport!r}, {dict(self.settings)!r})"
        return f"from dpbal.transports import TRANSPORTS\n{build}"

    def process(self, code: str = "", modules: tuple[str, ...] = ()) -> Process:
        """A process that has the transport as ``t``; as ``Process``."""
        return Process(f"{self.code}\n{code}", modules=(*self.modules, *modules))


CASES = [
    Case("shm", "shm"),
    Case(  # whose publication arrives later where it would have waited for more than a second
        "manager", "manager", is_at_once=False, outlives_stopped=False, outlives_owner=False
    ),
    Case(
        "gather",
        "gather",
        {"interval_steps": 1, "timeout_s": GATHER_S},
        modules=("torch.distributed",),
        outlives_rank=False,
        outlives_stopped=False,
    ),
    Case("zmq-ipc", "zmq", is_at_once=False, gone_s=3.0, sees_stopped=True),
    Case(
        "zmq-tcp",
        "zmq",
        {"hosts": ["127.0.0.1"], "port": 0},
        is_at_once=False,
        gone_s=3.0,
        sees_stopped=True,
    ),
]
CASES = [case for case in CASES if case.transport in TRANSPORTS]

PARAMS = [
    pytest.param(
        case,
        id=case.name,
        marks=pytest.mark.skipif(
            any(importlib.util.find_spec(m.split(".")[0]) is None for m in case.modules),
            reason=f"{' and '.join(case.modules)} cannot be imported",
        ),
    )
    for case in CASES
]


class Group:
    """Some ranks, each in a process, and the first of their dispatchers in this one.

    Args:
        case: How they exchange reports.
        ranks: Their number.
        owner: The process that owns the exchange, if it is not this one.
    """

    def __init__(self, case: Case, ranks: int = 2, owner: Process | None = None) -> None:
        self.case = case
        self.transport = case.build()
        self.exchange: Exchange | None = None
        self.subscriber: Subscriber | None = None
        self.processes: list[Process] = []
        self.stopped: set[int] = set()
        self._steps = 0
        self._others: list[Process] = []
        try:
            self._start(ranks, owner)
        except BaseException:
            self.close()
            raise

    def _start(self, ranks: int, owner: Process | None) -> None:
        if owner is None:
            self.exchange = self.transport.create(ranks, 2)
            self.address = self.exchange.address
        else:
            owner.do(f"x = t.create({ranks}, 2)")
            self.address = owner.do("x.address")
        for rank in range(ranks):
            self.processes.append(self.case.process())
            self.join(rank)
        self.table = LoadTable(ranks, 2)
        self.subscriber = self.transport.subscriber(self.address, self.table)

    def refresh(self) -> None:
        """The dispatcher here looks."""
        assert self.subscriber is not None
        self.subscriber.refresh()

    @property
    def ages_s(self) -> list[float]:
        """What it knows of the age of each rank's report."""
        assert self.subscriber is not None
        ages_s: list[float] = self.subscriber.ages_s().tolist()
        return ages_s

    def other(self, code: str = "") -> Process:
        """One more process, which ends with the group."""
        self._others.append(self.case.process(code))
        return self._others[-1]

    def join(self, rank: int) -> None:
        self.processes[rank].do(f"p = t.publisher({self.address!r}, {rank})\n{GOES_ON}\n{HEARS}")

    def publish(self, rank: int, running: int = 1) -> None:
        """A rank publishes; where ranks meet, the others come too."""
        self.processes[rank].do(f"p.report['running'] = {running}; p.publish()")
        self.step()

    @property
    def present(self) -> list[Process]:
        """Ranks that run: all that the test has neither stopped nor ended."""
        ranks = enumerate(self.processes)
        present = [p for rank, p in ranks if rank not in self.stopped and not p.is_over]
        for process in present:
            assert not process.has_ended, f"a rank has ended by itself: {process.output}"
        return present

    def step(self) -> None:
        """All ranks that run begin a step, if that means anything."""
        if not self.transport.is_collective:
            return
        step = self.take_steps(1)
        present = self.present
        for process in present:
            process.tell(f"p.step({step})")
        for process in present:
            process.answer()

    def take_steps(self, number: int) -> int:
        """The first of the next steps of the group, which a test has its ranks do."""
        self._steps += number
        return self._steps - number

    def go_on(self, *ranks: int, running: int = 1000) -> None:
        """Ranks publish a hundred times, at the same time, and hardly ever wait."""
        first = self.take_steps(ITERATIONS)
        for rank in ranks:
            self.processes[rank].tell(f"go_on({first}, {running})")
        for rank in ranks:
            assert self.processes[rank].answer() <= FEW, self.processes[rank].output

    def has_gone_on(self, *ranks: int, running: int = 1000) -> Callable[[], bool]:
        """A condition: the last of the hundred has arrived."""
        last = running + ITERATIONS - 1
        return lambda: bool((self.table.reports["running"][list(ranks)] == last).all())

    def see(self, condition: Callable[[], bool]) -> None:
        """Look at what was published: at once, where the transport says so."""
        if self.case.is_at_once:
            self.refresh()
            assert condition(), self.table.reports
        else:
            self.until(condition)

    def until(self, condition: Callable[[], bool]) -> None:
        """Look until something holds that need not hold at once."""
        deadline_s = time.monotonic() + PATIENCE_S
        self.refresh()
        while not condition():
            assert time.monotonic() < deadline_s, (self.table.reports, self.table.selectable)
            time.sleep(LOOK_S)
            self.refresh()

    def chooses(self, *selectable: bool) -> Callable[[], bool]:
        """A condition: exactly these ranks may be chosen."""
        return lambda: self.table.selectable.tolist() == list(selectable)

    def has(self, field_: str, *values: int) -> Callable[[], bool]:
        """A condition: the ranks' reports say this."""
        return lambda: self.table.reports[field_].tolist() == list(values)

    def goes_through(self, rank: int) -> bool:
        """Whether what a rank publishes now arrives."""
        running = self.table.reports["running"].item(rank) + 1
        self.publish(rank, running)
        self.refresh()
        return bool(self.table.reports["running"][rank] == running)

    def restart(self, rank: int, how: signal.Signals | None = signal.SIGKILL) -> None:
        """A rank's process ends, and another takes its place."""
        self.processes[rank].end(how)
        self.processes[rank] = self.case.process()
        self.join(rank)

    def stop(self, rank: int) -> None:
        """A rank is kept from running."""
        self.processes[rank].send(signal.SIGSTOP)
        self.stopped.add(rank)

    def wake(self, rank: int) -> None:
        """And runs again."""
        self.processes[rank].send(signal.SIGCONT)
        self.stopped.discard(rank)

    def close(self) -> None:
        for process in (*self.processes, *self._others):
            process.end(signal.SIGKILL)
        if self.subscriber is not None:
            self.subscriber.close()
        if self.exchange is not None:
            self.exchange.close()
