"""A weighted sum of signals that count the same thing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from dpbal.core import REPORT, View, column
from dpbal.errors import unknown
from dpbal.signals.base import SIGNALS, Reported, Signal, Unit


@SIGNALS.register("sum")
@dataclass
class Sum(Signal):
    """Several signals, each times its weight; ``in_flight`` counts what the others count.

    Formula: ``load = sum of weight * term``.

    Wins over any report alone, as what is in flight is never lost. Its terms must count the same:
    tokens and seconds do not add up.

    Args:
        terms: Weight of each signal, by name. None is ``holding_tokens`` plus ``in_flight``, the
            number of SGLang PR #7379.

    Example:
        >>> Sum({"prefill_work": 1.0, "in_flight": 1.0}).counts
        <Unit.seconds: 'seconds'>

    Raises:
        ValueError: For no term or an unknown one, a weight that is negative or infinite, terms that
            count different things, or ``in_flight`` alone.
    """

    terms: dict[str, float] | None = None

    def __post_init__(self) -> None:
        terms = {"holding_tokens": 1.0, "in_flight": 1.0} if self.terms is None else self.terms
        if not terms:
            raise ValueError(
                "terms is empty; type 'signal.terms={holding_tokens: 1, in_flight: 1}'"
            )
        known = [name for name in SIGNALS if name != "sum"]
        for name, weight in terms.items():
            if name not in known:
                raise ValueError(unknown("term", name, known))
            if not 0 <= weight < math.inf:
                raise ValueError(f"the weight of {name} must not be negative, got {weight}")
        signals = {name: SIGNALS[name]() for name in terms if name != "in_flight"}
        if not signals:
            raise ValueError(
                "in_flight alone has no unit to count in; "
                "use signal=in_flight, or add a term such as holding_tokens"
            )
        units = {name: signal.counts for name, signal in signals.items()}
        if len(set(units.values())) > 1:
            given = ", ".join(f"{name} in {unit.value}" for name, unit in units.items())
            raise ValueError(f"terms must count the same thing, but there is {given}")
        self._counts = next(iter(units.values()))
        self._in_flight_field = self._counts.in_flight_field
        self._in_flight_weight = terms.get("in_flight", 0.0)
        self._weights = np.zeros(len(REPORT.names or ()))
        for name, signal in signals.items():
            if _adds_fields(signal):
                for report_field in signal.fields:
                    self._weights[column(report_field)] += terms[name]
        self._others = [
            (signal, terms[name]) for name, signal in signals.items() if not _adds_fields(signal)
        ]
        self._total = np.zeros(0)

    @property
    def counts(self) -> Unit:
        """What every term counts."""
        return self._counts

    @property
    def reads_in_flight(self) -> bool:
        """Whether any term does."""
        return self._in_flight_weight > 0 or any(s.reads_in_flight for s, _ in self._others)

    def load(self, view: View) -> np.ndarray:
        """``float64[ranks]``, valid until the next call."""
        integers, total = view.integers, self._total
        if len(total) != len(integers):
            total = self._prepare(len(integers))
        in_flight = view.in_flight[self._in_flight_field]
        self._add_weighted(
            integers, view.floats, self._weights, in_flight, self._in_flight_weight, total
        )
        for signal, weight in self._others:
            total += weight * signal.load(view)
        return total

    def _prepare(self, ranks: int) -> np.ndarray:
        # numba is slow to import, and composing a config adds nothing up
        from dpbal.signals.weighted import add_weighted

        self._add_weighted = add_weighted
        self._total = np.zeros(ranks)
        return self._total


def _adds_fields(signal: Signal) -> TypeGuard[Reported]:
    """Whether a signal is no more than its fields added up."""
    return isinstance(signal, Reported) and type(signal).load is Reported.load
