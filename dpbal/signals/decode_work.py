"""Seconds of decoding that a rank's batch takes for its next tokens."""

from __future__ import annotations

from dataclasses import dataclass

from dpbal.signals.base import SIGNALS, Reported, Unit


@SIGNALS.register("decode_work")
@dataclass
class DecodeWork(Reported):
    """What one more token for every decoding request costs a rank, without the fixed part.

    Formula: ``load = decode_s = c D + d KV``, by the profile, for D sequences with KV tokens.

    Wins in decode-only groups, where it is what makes a step long. Loses on its own where prompts
    are long: it does not see the queue. In a sum it settles ties of ``prefill_work``.

    Reference: the balance of decode loads in BalanceRoute (arXiv 2605.06113).
    """

    fields = ("decode_s",)
    unit = Unit.seconds
