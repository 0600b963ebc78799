"""Seconds of decoding that a rank's next tokens take once it decodes all that it was given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpbal.core import View
from dpbal.signals.base import SIGNALS, Signal, Unit


@SIGNALS.register("decode_load")
@dataclass
class DecodeLoad(Signal):
    """What one more token costs a rank for every request it has been given, as if all decoded.

    Formula: ``load = c R + d T``, by the profile, for R requests waiting, running and in flight,
    with T tokens of prompts and output between them.

    Wins in decode-only groups: unlike ``decode_work`` it knows what a rank has not begun to decode,
    so requests that arrive within a step spread. Loses where there is prefill, which it does not
    see.

    Reference: the load in BalanceRoute (arXiv 2605.06113), in seconds instead of KV tokens.
    """

    def __post_init__(self) -> None:
        self._total = np.zeros(0)

    @property
    def counts(self) -> Unit:
        """Seconds, of decoding."""
        return Unit.seconds

    def load(self, view: View) -> np.ndarray:
        """``float64[ranks]``, valid until the next call."""
        if len(self._total) != view.ranks:
            # numba is slow to import, and composing a config adds nothing up
            from dpbal.signals.decode_seconds import decode_seconds

            self._decode_seconds = decode_seconds
            self._total = np.zeros(view.ranks)
        in_flight, step_time = view.in_flight, view.step_time
        self._decode_seconds(
            view.integers,
            in_flight.requests,
            in_flight.tokens,
            step_time.decode_s_per_seq,
            step_time.kv_s_per_token,
            self._total,
        )
        return self._total
