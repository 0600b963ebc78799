"""Ranks that meet, in processes, with what they log, and a dispatcher here."""

from __future__ import annotations

import signal
from collections.abc import Callable

from dpbal.core import LoadTable
from dpbal.transports import Exchange, Gather, Subscriber
from tests.transports.groups import GATHER_S, HURRIED_S
from tests.transports.processes import Process

SETTINGS = {"interval_steps": 10, "timeout_s": GATHER_S}
HURRIED = SETTINGS | {"timeout_s": HURRIED_S}


class Group:
    """Ranks in processes, which log to their output, and a dispatcher here."""

    def __init__(
        self, start: Callable[..., Process], ranks: int, settings: dict[str, float] = SETTINGS
    ) -> None:
        self._settings = settings
        self.transport = Gather(**settings)  # type: ignore[arg-type]
        self.exchange: Exchange = self.transport.create(ranks, 1)
        self._start = start
        self.ranks = [self.process(rank) for rank in range(ranks)]
        self.table = LoadTable(ranks)
        self.subscriber: Subscriber = self.transport.subscriber(self.exchange.address, self.table)

    def process(self, rank: int) -> Process:
        return self._start(
            "import time; from dpbal.transports import Gather\n"
            f"p = Gather(**{self._settings}).publisher({self.exchange.address!r}, {rank})\n"
            "def waits(step):\n"
            "    began_s = time.monotonic(); p.step(step)\n"
            f"    return time.monotonic() - began_s > {self._settings['timeout_s'] / 2}",
            modules=["torch.distributed"],
        )

    def publish(self, running: int) -> None:
        for rank, process in enumerate(self.ranks):
            process.do(f"p.report['running'] = {running + rank}; p.publish()")

    def step(self, *steps: int, ranks: list[Process] | None = None) -> list[int]:
        """Steps of some ranks, or all; in how many each rank waited for most of the time-out."""
        present = self.ranks if ranks is None else ranks
        for process in present:
            process.tell(f"sum(waits(step) for step in {list(steps)})")
        return [process.answer() for process in present]

    @property
    def running(self) -> list[int]:
        self.subscriber.refresh()
        running: list[int] = self.table.reports["running"].tolist()
        return running

    def close(self) -> None:
        for process in self.ranks:
            process.end(signal.SIGKILL)
        self.subscriber.close()
        self.exchange.close()
