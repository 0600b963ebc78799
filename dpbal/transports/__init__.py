"""Ways for load reports to travel; importing this package registers them all."""

from __future__ import annotations

from dpbal.transports.base import TRANSPORTS, Timing, Transport
from dpbal.transports.delayed import Delayed
from dpbal.transports.local import Local

__all__ = ["TRANSPORTS", "Delayed", "Local", "Timing", "Transport"]
