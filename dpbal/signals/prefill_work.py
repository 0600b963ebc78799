"""Seconds of prefill that a rank still has to do."""

from __future__ import annotations

from dataclasses import dataclass

from dpbal.signals.base import SIGNALS, Reported, Unit


@SIGNALS.register("prefill_work")
@dataclass
class PrefillWork(Reported):
    """A rank's un-prefilled work, waiting and running, in seconds of its own time by the profile.

    Formula: ``load = prefill_s``, the sum of ``b n + e n (context + n / 2)`` over its requests,
    with n tokens left to prefill. Of a waiting request the hit counts that its
    dispatcher expects, of one in the batch the hit that it had.

    Wins for time to first token: it is the queue that a new prompt waits behind. Loses where
    outputs are long and prefill is little, as it does not see the decode batch.

    Reference: Dynamo's and Mooncake's prefill load, in seconds instead of tokens.
    """

    fields = ("prefill_s",)
    unit = Unit.seconds
