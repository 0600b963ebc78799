"""Requests that a rank has."""

from __future__ import annotations

from dataclasses import dataclass

from dpbal.signals.base import SIGNALS, Reported, Unit


@SIGNALS.register("requests")
@dataclass
class RequestCount(Reported):
    """Requests in a rank's batch and in its queue, as last reported.

    Formula: ``load = running + waiting``.

    Wins by being robust: no model, no lengths. Loses where requests differ in size.

    Reference: SGLang 0.5.23, ``total_requests``; the shortest queue of every router.
    """

    fields = ("running", "waiting")
    unit = Unit.requests
