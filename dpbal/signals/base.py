"""What every signal is: one number per rank, from reports and what is in flight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np

from dpbal.core import View
from dpbal.ledger import InFlight
from dpbal.registry import Registry


class Unit(Enum):
    """What a signal counts."""

    tokens = "tokens"
    requests = "requests"
    seconds = "seconds"

    @property
    def in_flight_field(self) -> int:
        """Place among the fields of ``InFlight`` of the one that counts this."""
        names = {"tokens": "tokens", "requests": "requests", "seconds": "prefill_s"}
        return InFlight._fields.index(names[self.value])


@dataclass
class Signal(ABC):
    """Turns reports and what is in flight into one number per rank; lower is freer."""

    @property
    @abstractmethod
    def counts(self) -> Unit:
        """What the numbers count; only equal units are added."""

    @property
    def reads_in_flight(self) -> bool:
        """Whether what is in flight matters; where not, the ledger has no effect."""
        return True

    @abstractmethod
    def load(self, view: View) -> np.ndarray:
        """``float64`` or ``int64`` ``[ranks]``. The caller reads it at once and writes nothing."""


@dataclass
class Reported(Signal):
    """A signal that is a field of the reports, or several of them added up."""

    fields: ClassVar[tuple[str, ...]]
    """Fields of ``REPORT``."""

    unit: ClassVar[Unit]
    """What they count."""

    @property
    def counts(self) -> Unit:
        """What the fields count."""
        return self.unit

    @property
    def reads_in_flight(self) -> bool:
        """Reports alone matter."""
        return False

    def load(self, view: View) -> np.ndarray:
        """``float64`` or ``int64`` ``[ranks]``, as the fields are."""
        reports = view.reports
        first, *others = self.fields
        load: np.ndarray = reports[first]
        for name in others:
            load = load + reports[name]
        return load


SIGNALS: Registry[Signal] = Registry("signal")
