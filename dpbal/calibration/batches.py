"""What a rank computes in a step that is put together from tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prefill:
    """Prompts, or chunks of prompts of which ``context`` tokens each are computed already."""

    prompts: int
    length: int
    context: int = 0

    @property
    def tokens(self) -> int:
        """Of all prompts."""
        return self.prompts * self.length

    @property
    def pairs(self) -> float:
        """Query-key pairs of all prompts."""
        return self.tokens * (self.context + self.length / 2)


@dataclass(frozen=True)
class Decode:
    """Sequences with ``context`` tokens each."""

    sequences: int
    context: int

    @property
    def kv_tokens(self) -> int:
        """Of all sequences."""
        return self.sequences * self.context


def work(prefill: Prefill | None, decode: Decode | None) -> tuple[float, ...]:
    """As ``dpbal.calibration.samples.WORK`` has it."""
    return (
        prefill.tokens if prefill else 0,
        decode.sequences if decode else 0,
        decode.kv_tokens if decode else 0,
        prefill.pairs if prefill else 0,
    )
