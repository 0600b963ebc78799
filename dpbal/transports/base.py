"""What every transport is: a way for load reports to travel, and the timing it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from dpbal.registry import Registry


class Timing(NamedTuple):
    """When a report leaves its rank and when dispatchers can see it.

    Attributes:
        interval_steps: A rank publishes after every that many of its steps.
        publish_on_prefill: A rank publishes after every step with prefill too.
        publish_on_idle: A rank publishes after the step that left it nothing to do too.
        interval_s: Dispatchers see what has arrived at multiples of this; 0 is at once.
        delay_s: Seconds from publishing to arrival.
        jitter_s: Up to this many seconds more, uniform. Reports of a rank keep their order.
        loss: Probability that a report is lost.
    """

    interval_steps: int = 1
    publish_on_prefill: bool = False
    publish_on_idle: bool = True
    interval_s: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0


@dataclass
class Transport(ABC):
    """A way for load reports to travel from ranks to dispatchers; the latest wins."""

    @property
    @abstractmethod
    def timing(self) -> Timing:
        """What the simulator makes of this transport."""


TRANSPORTS: Registry[Transport] = Registry("transport")
