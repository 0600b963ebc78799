"""Ways for load reports to travel; importing this package registers them all."""

from __future__ import annotations

from dpbal.transports.base import (
    TRANSPORTS,
    Exchange,
    ProcessTransport,
    Publisher,
    Subscriber,
    Timing,
    Transport,
)
from dpbal.transports.delayed import Delayed
from dpbal.transports.local import Local
from dpbal.transports.shm import Shm

__all__ = [
    "TRANSPORTS",
    "Delayed",
    "Exchange",
    "Local",
    "ProcessTransport",
    "Publisher",
    "Shm",
    "Subscriber",
    "Timing",
    "Transport",
]
