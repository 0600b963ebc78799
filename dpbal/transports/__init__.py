"""Ways for load reports and budget vectors to travel; importing this package registers them all."""

from __future__ import annotations

from dpbal.transports.base import (
    RING,
    TRANSPORTS,
    Exchange,
    ProcessTransport,
    Publisher,
    Subscriber,
    Timing,
    Transport,
    Vectors,
)
from dpbal.transports.delayed import Delayed
from dpbal.transports.gather import Gather
from dpbal.transports.local import Local
from dpbal.transports.manager import Manager
from dpbal.transports.shm import Shm
from dpbal.transports.zmq import Zmq

__all__ = [
    "RING",
    "TRANSPORTS",
    "Delayed",
    "Exchange",
    "Gather",
    "Local",
    "Manager",
    "ProcessTransport",
    "Publisher",
    "Shm",
    "Subscriber",
    "Timing",
    "Transport",
    "Vectors",
    "Zmq",
]
