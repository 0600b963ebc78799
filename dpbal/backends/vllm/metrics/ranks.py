"""What is known of each rank at one moment: reports, what is in flight, and its own counters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpbal.backends.vllm.metrics import families as f
from dpbal.signals.base import SIGNALS, Reported

if TYPE_CHECKING:
    from dpbal.backends.vllm.front_end.front_end import FrontEnd
    from dpbal.backends.vllm.metrics.telemetry import RankWords, Telemetry
    from dpbal.backends.vllm.metrics.values import Values


class RankMetrics:
    """Shows what a front end sees of its ranks.

    Args:
        values: Where.
        front_end: Whose.
        signal: Name of the number that its balancer ranks by.
        engines: Global number of each rank, vLLM's label ``engine``.
    """

    def __init__(
        self, values: Values, front_end: FrontEnd, signal: str, engines: Sequence[int]
    ) -> None:
        self._values = values
        self._front_end = front_end
        self._engines = [(str(engine),) for engine in engines]
        self._signals = {
            name: SIGNALS[name]() for name in SIGNALS if issubclass(SIGNALS[name], Reported)
        }
        self._reported = {
            name: [(*engine, name, own.counts.value) for engine in self._engines]
            for name, own in self._signals.items()
        }
        self._loads = [
            [
                (*engine, str(d.ledger.dispatcher), signal, d.view.unit.value)
                for engine in self._engines
            ]
            for d in front_end.dispatchers
        ]

    def show(self) -> None:
        """Show what is so now."""
        values, engines = self._values, self._engines
        dispatchers = self._front_end.dispatchers
        table, view = dispatchers[0].table, dispatchers[0].view
        has_reported = (table.reports["version"] > 0).tolist()
        for labels, dispatcher in zip(self._loads, dispatchers, strict=True):
            self._show_known(f.DISPATCHER_LOAD, dispatcher.view.loads, labels, has_reported)
        for name, signal in self._signals.items():
            self._show_known(f.REPORTED_LOAD, signal.load(view), self._reported[name], has_reported)
        ages_s = self._front_end.ages_s()
        self._show_known(f.REPORT_AGE, ages_s, engines, np.isfinite(ages_s).tolist())
        values.show_all(f.SELECTABLE, table.selectable.astype(int).tolist(), engines)
        ledgers = [dispatcher.ledger for dispatcher in dispatchers]
        for family, several in (
            (f.IN_FLIGHT_REQUESTS, [ledger.in_flight.requests for ledger in ledgers]),
            (f.IN_FLIGHT_TOKENS, [ledger.in_flight.tokens for ledger in ledgers]),
            (f.IN_FLIGHT_S, [ledger.in_flight.prefill_s for ledger in ledgers]),
            (f.OUTSTANDING, [ledger.outstanding for ledger in ledgers]),
        ):
            values.show_all(family, sum(several[1:], several[0]).tolist(), engines)

    def _show_known(
        self,
        family: f.Family,
        numbers: np.ndarray,
        labels: Sequence[tuple[str, ...]],
        is_known: Sequence[bool],
    ) -> None:
        """Show the numbers that are known; what is missing is not zero."""
        for value, place, shows in zip(numbers.tolist(), labels, is_known, strict=True):
            if shows:
                self._values.show(family, value, *place)


class TelemetryMetrics:
    """Shows what the ranks of this host have counted themselves.

    Args:
        values: Where.
        telemetry: What they wrote.
        engines: Global number of each rank that this front end knows.
    """

    def __init__(self, values: Values, telemetry: Telemetry, engines: Sequence[int]) -> None:
        self._values = values
        self._telemetry = telemetry
        self._engines = engines

    def show(self) -> None:
        """Show what is so now."""
        for engine in self._engines:
            words = self._telemetry.read(engine)
            if words is not None:
                self._show_rank(words, str(engine))

    def close(self) -> None:
        """Look no more."""
        self._telemetry.close()

    def _show_rank(self, words: RankWords, engine: str) -> None:
        show = self._values.show
        show(f.STEPS, words.steps, engine)
        show(f.LOCAL_S, words.local_s, engine)
        budget, group = words.budget, words.group
        if budget is not None:
            show(f.BUDGET_STEPS, budget.steps, engine)
            show(f.ALONE_STEPS, budget.alone_steps, engine)
            show(f.LIMIT_S, budget.limit_s, engine)
            show(f.LIMIT_TOKENS, budget.limit_tokens, engine)
            show(f.LEVEL_S, budget.level_s, engine)
        if group is not None and math.isfinite(group.longest_s):
            show(f.GROUP_STEPS, group.steps)
            show(f.SKIPPED_STEPS, group.skipped)
            show(f.MEAN_S, group.mean_s)
            show(f.LONGEST_S, group.longest_s)
