"""One run of real engines: what it needs is made, requests are replayed, everything goes again."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpbal.backends.base import STEP_RECORD, Emulation, Parts, Records
from dpbal.backends.vllm import recorder
from dpbal.backends.vllm.front_end.front_end import Decision, FrontEnd
from dpbal.backends.vllm.plugin import installed
from dpbal.backends.vllm.runs import server
from dpbal.backends.vllm.runs.guard import guarded
from dpbal.backends.vllm.runs.replay import Replay
from dpbal.backends.vllm.settings import Settings
from dpbal.balancers import BALANCERS
from dpbal.budgets import BUDGETS
from dpbal.config import Config, Group
from dpbal.indexers import INDEXERS
from dpbal.modes import GroupKind
from dpbal.transports import TRANSPORTS
from dpbal.workloads.base import Requests

if TYPE_CHECKING:
    from dpbal.backends.vllm.backend import Vllm


class Run:
    """One run.

    Args:
        backend: What the engines are.
        requests: What they are asked.
        parts: The combination.
    """

    def __init__(self, backend: Vllm, requests: Requests, parts: Parts) -> None:
        self._backend = backend
        self._requests = requests
        self._parts = parts
        self._decisions: list[Decision] = []

    def run(self, progress: Callable[[int], None] | None) -> Records:
        """Do it.

        Raises:
            DpbalError: If the engines could not be started, or one of them died.
        """
        with tempfile.TemporaryDirectory(prefix="dpbal-") as name, guarded(Path(name)):
            folder = Path(name)
            settings = Settings(self._config())
            settings.transport  # noqa: B018 - raises for one of the simulator's
            settings.indexer  # noqa: B018 - likewise
            requests = self._requests
            longest = int((requests.prompt_tokens + requests.output_tokens).max())
            engine_args = server.engine_args(self._backend, self._parts, folder, longest)

            def front_end(*_: int) -> FrontEnd:
                return FrontEnd.connect(settings, self._parts.dispatchers, self._decisions)

            with server.environment(folder, settings.config), installed(settings, front_end):
                replay = Replay(
                    requests, self._backend, self._parts.ranks, settings.is_lockstep, progress
                )
                with _terminable():
                    asyncio.run(replay.run(engine_args))
            return self._records(replay, server.records(folder))

    def _config(self) -> Config:
        """What the engines' processes have to know."""
        parts = self._parts
        indexer = parts.dispatchers[0].indexer
        return Config(
            indexer={"name": "none"} if indexer is None else INDEXERS.describe(indexer),
            balancer=BALANCERS.describe(parts.dispatchers[0].balancer),
            signal={"name": "requests"},
            transport=TRANSPORTS.describe(parts.transport),
            budget=BUDGETS.describe(parts.budget),
            workload={"name": "none"},
            backend={"name": "vllm", **vars(self._backend)},
            profile=vars(parts.step_time),
            tracker={"name": "none"},
            group=Group(parts.kind, parts.ranks, len(parts.dispatchers)),
        )

    def _records(self, replay: Replay, folder: Path) -> Records:
        import vllm

        k = self._backend.dilation
        start_s = replay.start_s
        steps, gaps_s, preempted = recorder.read(folder, self._parts.ranks)
        steps = steps[steps["start_s"] >= start_s]
        late_share = _share(steps["is_late"])
        looked_up = int(steps["looked_up_tokens"].sum())
        hit_share = int(steps["hit_tokens"].sum()) / looked_up if looked_up else None
        needs_vectors = self._parts.kind is GroupKind.lockstep and self._parts.budget.needs_vectors
        alone_share = _share(steps["is_alone"]) if needs_vectors else None
        if self._parts.kind is GroupKind.lockstep:
            steps = recorder.with_idle_ranks(steps, self._parts.ranks)
        rows = np.zeros(len(steps), STEP_RECORD)
        for field in STEP_RECORD.names or ():
            rows[field] = steps[field]
        for field in ("start_s", "end_s"):
            rows[field] = (steps[field] - start_s) / k
        requests = replay.rows
        decided = [(recorder.number(d.request_id), d) for d in self._decisions]
        decided = [(number, decision) for number, decision in decided if number >= 0]
        for number, decision in decided:
            requests["dispatcher"][number] = decision.dispatcher
        np.add.at(requests["preemptions"], preempted[preempted >= 0], 1)
        return Records(
            requests=requests,
            steps=rows,
            late_gaps_s=gaps_s / k,
            decision_ns=np.array([decision.took_ns for _, decision in decided], np.int64),
            wall_s=replay.wall_s,
            ranks=self._parts.ranks,
            kind=self._parts.kind,
            emulation=Emulation(f"vLLM {vllm.__version__}", k, late_share, alone_share, hit_share),
        )


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else 0.0


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does, so that everything is cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def interrupt(number: int, frame: object) -> None:
        if os.getpid() == process:
            signal.raise_signal(signal.SIGINT)
        else:  # a child that was forked before it had a handler of its own
            os._exit(128 + number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
