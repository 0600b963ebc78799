"""Signals that say how loaded a rank is; importing this package registers them all."""

from __future__ import annotations

from dpbal.signals.base import SIGNALS, Signal, Unit
from dpbal.signals.decode_load import DecodeLoad
from dpbal.signals.decode_work import DecodeWork
from dpbal.signals.get_load import GetLoad
from dpbal.signals.holding_tokens import HoldingTokens
from dpbal.signals.in_flight import InFlightSignal
from dpbal.signals.prefill_work import PrefillWork
from dpbal.signals.requests import RequestCount
from dpbal.signals.sum import Sum

__all__ = [
    "SIGNALS",
    "DecodeLoad",
    "DecodeWork",
    "GetLoad",
    "HoldingTokens",
    "InFlightSignal",
    "PrefillWork",
    "RequestCount",
    "Signal",
    "Sum",
    "Unit",
]
