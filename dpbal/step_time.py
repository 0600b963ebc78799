"""From the work in a step to its seconds, and back; the one cost model that everything shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

COSTS = np.dtype(
    [
        ("fixed_s", np.float64),
        ("prefill_s_per_token", np.float64),
        ("decode_s_per_seq", np.float64),
        ("kv_s_per_token", np.float64),
        ("attention_s_per_pair", np.float64),
        ("common_fixed_s", np.float64),
        ("common_s_per_token", np.float64),
        ("mixed_penalty_s", np.float64),
        ("pad_to_largest", np.bool_),
    ]
)
"""The constants of a profile as one record, for compiled code."""


def local_s(
    fixed_s: float,
    prefill_s_per_token: float,
    decode_s_per_seq: float,
    kv_s_per_token: float,
    attention_s_per_pair: float,
    prefill_tokens: float,
    decode_seqs: float,
    decode_kv_tokens: float,
    pairs: float,
) -> float:
    """Seconds of a rank's own part of a step: ``a + b P + c D + d KV + e pairs``; 0 when idle.

    ``pairs`` counts query-key pairs of the prefill, ``sum(chunk * (context + chunk / 2))``.
    """
    if prefill_tokens + decode_seqs == 0:
        return 0.0
    return (
        fixed_s
        + prefill_s_per_token * prefill_tokens
        + decode_s_per_seq * decode_seqs
        + kv_s_per_token * decode_kv_tokens
        + attention_s_per_pair * pairs
    )


def common_s(
    common_fixed_s: float,
    common_s_per_token: float,
    mixed_penalty_s: float,
    pad_to_largest: bool,
    tokens: float,
    largest_tokens: float,
    ranks: int,
    is_mixed: bool,
) -> float:
    """Seconds of the part of a lockstep step that all ranks share: ``A + m tokens / N``.

    With padding every rank is as large as the largest, so the tokens are ``N * largest``. A step
    that holds prefill while some rank decodes pays the penalty on top.
    """
    if pad_to_largest:
        tokens = largest_tokens * ranks
    seconds = common_fixed_s + common_s_per_token * tokens / ranks
    return seconds + mixed_penalty_s if is_mixed else seconds


def decode_s(
    decode_s_per_seq: float, kv_s_per_token: float, decode_seqs: float, decode_kv_tokens: float
) -> float:
    """Seconds of local time for a token of each decoding sequence, fixed part apart."""
    return decode_s_per_seq * decode_seqs + kv_s_per_token * decode_kv_tokens


def queued_s(
    prefill_s_per_token: float, attention_s_per_pair: float, tokens: float, squares: float
) -> float:
    """Seconds of local time that prefill still to come takes, of any number of requests.

    ``squares`` is the sum of ``L**2 - c**2`` over prompts of L tokens of which c are computed,
    twice the query-key pairs still to come.
    """
    return prefill_s_per_token * tokens + 0.5 * attention_s_per_pair * squares


def tokens_within(
    prefill_s_per_token: float, attention_s_per_pair: float, seconds: float, context: float
) -> float:
    """Most whole prefill tokens after ``context`` that fit in ``seconds``; infinity if all do.

    The positive root of ``e/2 x^2 + (b + e context) x = seconds``, in a form without cancellation.
    """
    slope = prefill_s_per_token + attention_s_per_pair * context
    curve = 0.5 * attention_s_per_pair
    if seconds <= 0:
        return 0.0
    if seconds == math.inf or slope + curve == 0:
        return math.inf
    root = 2 * seconds / (slope + math.sqrt(slope * slope + 4 * curve * seconds))
    return float(math.floor(root * (1 + 1e-12)))


@dataclass
class StepTime:
    """Step-time constants of a model on a device, with where they come from.

    A rank's own (local) time is ``a + b P + c D + d KV + e pairs`` for P prefill tokens, D decode
    sequences, KV tokens in their contexts, and query-key pairs of the prefill. In a lockstep group
    the step lasts ``A + m tokens / N + max over ranks of the local time``; a rank of an independent
    group pays ``A + m tokens`` for itself.

    Args:
        model: Model and its parallel layout.
        device: Accelerator.
        source: Where the constants come from.
        error: How far they are from measurements, as far as anyone knows.
        evidence: For each constant ``measured``, ``fitted`` or ``guessed``.
        kv_capacity_tokens: KV cache of one rank.
        fixed_s: a, seconds a step.
        prefill_s_per_token: b.
        decode_s_per_seq: c.
        kv_s_per_token: d, per token of decode context.
        attention_s_per_pair: e, per query-key pair. A fit on ``P**2`` of fresh prompts has half
            as many pairs, so its constant doubles here.
        common_fixed_s: A.
        common_s_per_token: m, per token and rank.
        mixed_penalty_s: Added to a step in which some rank prefills while some rank decodes.
        pad_to_largest: Whether the common part pads every rank to the largest.
    """

    model: str = "unnamed"
    device: str = "unnamed"
    source: str = "none"
    error: str = "unknown"
    evidence: dict[str, str] = field(default_factory=dict)
    kv_capacity_tokens: int = 500_000
    fixed_s: float = 0.0
    prefill_s_per_token: float = 0.0
    decode_s_per_seq: float = 0.0
    kv_s_per_token: float = 0.0
    attention_s_per_pair: float = 0.0
    common_fixed_s: float = 0.0
    common_s_per_token: float = 0.0
    mixed_penalty_s: float = 0.0
    pad_to_largest: bool = False

    def __post_init__(self) -> None:
        for name in COSTS.names or ():
            value = getattr(self, name)
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
            if not value < math.inf:
                raise ValueError(f"{name} must be a finite number, got {value}")
        if self.kv_capacity_tokens < 1:
            raise ValueError(f"kv_capacity_tokens must be positive, got {self.kv_capacity_tokens}")

    def costs(self) -> np.ndarray:
        """The constants as ``COSTS[1]``, for compiled code."""
        record = np.zeros(1, COSTS)
        for name in COSTS.names or ():
            record[name] = getattr(self, name)
        return record

    def local_s(
        self, prefill_tokens: float, decode_seqs: float, decode_kv_tokens: float, pairs: float
    ) -> float:
        """Seconds of a rank's own part of a step; 0 for an idle rank."""
        return local_s(
            self.fixed_s,
            self.prefill_s_per_token,
            self.decode_s_per_seq,
            self.kv_s_per_token,
            self.attention_s_per_pair,
            prefill_tokens,
            decode_seqs,
            decode_kv_tokens,
            pairs,
        )

    def common_s(self, tokens: Sequence[int], is_mixed: bool) -> float:
        """Seconds of the part of a step that ``tokens[ranks]`` share; ``[own]`` for one alone."""
        return common_s(
            self.common_fixed_s,
            self.common_s_per_token,
            self.mixed_penalty_s,
            self.pad_to_largest,
            sum(tokens),
            max(tokens),
            len(tokens),
            is_mixed,
        )

    def prefill_s(self, tokens: int, context: int = 0) -> float:
        """Seconds of local time to prefill ``tokens`` after ``context`` already computed."""
        pairs = tokens * (context + 0.5 * tokens)
        return self.prefill_s_per_token * tokens + self.attention_s_per_pair * pairs

    def decode_s(self, seqs: int, kv_tokens: int) -> float:
        """Seconds of local time for a token of each of ``seqs`` sequences, fixed part apart."""
        return decode_s(self.decode_s_per_seq, self.kv_s_per_token, seqs, kv_tokens)

    def tokens_within(self, seconds: float, context: int = 0) -> int:
        """Most prefill tokens after ``context`` within ``seconds``: the inverse of ``prefill_s``.

        Raises:
            ValueError: If prefill costs nothing, so that any number would fit.
        """
        tokens = tokens_within(
            self.prefill_s_per_token, self.attention_s_per_pair, seconds, context
        )
        if tokens == math.inf:
            raise ValueError("prefill costs nothing in this profile, so no time limits its tokens")
        return int(tokens)
