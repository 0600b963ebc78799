"""What was dispatched and is not yet covered by a report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpbal.core import View
from dpbal.signals.base import SIGNALS, Signal, Unit


@SIGNALS.register("in_flight")
@dataclass
class InFlightSignal(Signal):
    """What this dispatcher has sent to a rank beyond what the rank's newest report covers.

    Formula: the sum over uncovered dispatches of 1, of prompt tokens, or of seconds of prefill,
    less what its dispatcher expects to be cached.

    Wins as part of a sum: without it every request between two reports goes to the same rank. Alone
    it knows nothing of what ranks already have. In a sum it counts what the other terms count.

    Args:
        unit: ``tokens``, ``requests`` or ``seconds``, where it stands alone.

    Reference: SGLang PR #7379, the on-the-fly requests.
    """

    unit: Unit = Unit.tokens

    def __post_init__(self) -> None:
        self._field = self.unit.in_flight_field

    @property
    def counts(self) -> Unit:
        """The configured unit."""
        return self.unit

    def load(self, view: View) -> np.ndarray:
        """``float64[ranks]`` for seconds, else ``int64[ranks]``."""
        return view.in_flight[self._field]
