"""Brings the metrics of a front-end process up to date, once a second."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vllm.logger import init_logger

import dpbal
from dpbal.backends.vllm.combination import signal
from dpbal.backends.vllm.metrics import families as f
from dpbal.backends.vllm.metrics.counts import Counts
from dpbal.backends.vllm.metrics.ranks import RankMetrics, TelemetryMetrics
from dpbal.backends.vllm.metrics.telemetry import Telemetry
from dpbal.backends.vllm.metrics.values import Values
from dpbal.backends.vllm.settings import TELEMETRY, Settings

if TYPE_CHECKING:
    from dpbal.backends.vllm.front_end.front_end import FrontEnd

PERIOD_S = 1.0

LOG = init_logger(f"vllm.{__name__}")  # vLLM shows what is below its own name


class Exporter:
    """The metrics of one front-end process.

    What ranks have counted is shown by the first process only, as counters of processes add up.

    Args:
        front_end: Whose.
        settings: What the server does.
        engines: Global number of each of its ranks.
        number: Of the process.
    """

    def __init__(
        self, front_end: FrontEnd, settings: Settings, engines: Sequence[int], number: int = 0
    ) -> None:
        self._front_end = front_end
        self._engines = [str(engine) for engine in engines]
        self._values = Values()
        self._counts = front_end.counts = Counts(len(engines))
        self._ranks = RankMetrics(self._values, front_end, signal(settings), engines)
        self._telemetry = None
        place = os.environ.get(TELEMETRY)
        if place and number == 0:
            self._telemetry = TelemetryMetrics(self._values, Telemetry.attach(place), engines)
        self._timer: asyncio.TimerHandle | None = None
        self._has_failed = False
        self._is_closed = False
        self._values.show(f.INFO, 1, *_describe(settings))
        self.flush()

    def start(self) -> None:
        """Bring the metrics up to date from now on, if an event loop runs; else ask again."""
        if self._timer is None and not self._is_closed:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
            self._timer = loop.call_later(PERIOD_S, self._tick, loop)

    def flush(self) -> None:
        """Bring the metrics up to date."""
        values, counts = self._values, self._counts
        self._front_end.observe()
        self._ranks.show()
        for rank, engine in enumerate(self._engines):
            values.show(f.CHOICES, counts.choices[rank], engine, "balancer")
            values.show(f.CHOICES, counts.pins[rank], engine, "client")
        values.show_distribution(f.DECISION, counts.decisions_s)
        values.show_distribution(f.DECISION_AGE, counts.ages_s)
        for ending, count in counts.endings.items():
            values.show(f.ENDED, count, ending.value)
        ledgers = [dispatcher.ledger for dispatcher in self._front_end.dispatchers]
        values.show(f.RELEASES, sum(ledger.covered for ledger in ledgers), "report")
        values.show(f.RELEASES, sum(ledger.ended_uncovered for ledger in ledgers), "end")
        values.show(f.RELEASES, sum(ledger.forgotten for ledger in ledgers), "restart")
        values.show(f.UNKNOWN_RELEASES, sum(ledger.unknown_releases for ledger in ledgers))
        if any(dispatcher.indexer is not None for dispatcher in self._front_end.dispatchers):
            for engine, tokens in zip(self._engines, counts.cached_tokens, strict=True):
                values.show(f.EXPECTED_PREFIX, tokens, engine)
        if self._telemetry is not None:
            self._telemetry.show()

    def close(self) -> None:
        """Bring nothing up to date any more, and remove the metrics; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._telemetry is not None:
            self._telemetry.close()
        self._values.remove()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._is_closed:
            return
        try:
            self.flush()
        except Exception as error:
            if not self._has_failed:
                LOG.warning("dpbal: metrics are not up to date: %s", error)
            self._has_failed = True
        self._timer = loop.call_later(PERIOD_S, self._tick, loop)


def _describe(settings: Settings) -> tuple[str, ...]:
    """The labels of ``dpbal_info``."""
    config = settings.config
    profile = config.profile
    return (
        dpbal.__version__,
        config.balancer["name"],
        signal(settings),
        "none" if settings.indexer is None else config.indexer["name"],
        config.transport["name"],
        config.budget["name"],
        config.ledger.mode.name,
        f"{profile.get('model', 'unnamed')} on {profile.get('device', 'unnamed')}",
        config.group.kind.name,
    )
