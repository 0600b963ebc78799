"""Tokens of the requests that a rank holds."""

from __future__ import annotations

from dataclasses import dataclass

from dpbal.signals.base import SIGNALS, Reported, Unit


@SIGNALS.register("holding_tokens")
@dataclass
class HoldingTokens(Reported):
    """Prompt and generated tokens over a rank's waiting and running requests, as last reported.

    Formula: ``load = holding_tokens``. A shared prefix counts once for each request that has it.

    Wins where memory is what runs out. Loses where held tokens are no work: a long steady session
    looks busy (SGLang issues #31170 and #33625).

    Reference: SGLang PR #7379, first form.
    """

    fields = ("holding_tokens",)
    unit = Unit.tokens
