"""Lengths of prompts and outputs: mixtures of lognormals, cut to a range."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

MAX_TOKENS = 2**31 - 1
"""Longest prompt, and longest output; more would not fit the counts of an engine."""

MAX_SIGMA = 10.0
"""Widest lognormal; at 10 one length in a hundred is already e**23 times the median."""


@dataclass
class LengthPart:
    """One lognormal of a mixture.

    Args:
        share: Weight of this part; the weights of a mixture are scaled to add up to 1.
        mean_tokens: Mean of the lognormal, before it is cut to the range of the mixture.
        sigma: Standard deviation of the logarithm, 0 to 10; 0 makes every length the mean.
    """

    share: float = 1.0
    mean_tokens: float = 1000.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share < math.inf:
            raise ValueError(f"share must be positive and finite, got {self.share}")
        if not 0 < self.mean_tokens <= MAX_TOKENS:
            raise ValueError(
                f"mean_tokens must be positive and at most {MAX_TOKENS}, got {self.mean_tokens}"
            )
        if not 0 <= self.sigma <= MAX_SIGMA:
            raise ValueError(f"sigma must be from 0 to {MAX_SIGMA:g}, got {self.sigma}")


@dataclass
class Lengths:
    """A mixture of lognormals, rounded to whole tokens and cut to a range.

    Args:
        parts: The lognormals.
        min_tokens: What falls below becomes this; at least 1.
        max_tokens: What falls above becomes this; at most 2**31 - 1.
    """

    parts: list[LengthPart] = field(default_factory=lambda: [LengthPart()])
    min_tokens: int = 1
    max_tokens: int = 131_072

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("a mixture of lengths needs at least one part")
        if not 1 <= self.min_tokens <= self.max_tokens <= MAX_TOKENS:
            raise ValueError(
                f"lengths need 1 <= min_tokens <= max_tokens <= {MAX_TOKENS}, "
                f"got min_tokens={self.min_tokens}, max_tokens={self.max_tokens}"
            )

    def draw(self, count: int, seed: np.random.SeedSequence) -> np.ndarray:
        """``int64[count]`` lengths; with one seed a longer draw starts with the shorter one."""
        part_seed, size_seed = seed.spawn(2)
        share = np.array([part.share for part in self.parts])
        sigma = np.array([part.sigma for part in self.parts])
        log_mean = np.log([part.mean_tokens for part in self.parts]) - sigma**2 / 2
        upper = np.cumsum(share / share.sum())[:-1]
        part = np.searchsorted(upper, np.random.default_rng(part_seed).random(count), "right")
        normal = np.random.default_rng(size_seed).standard_normal(count)
        tokens = np.exp(log_mean[part] + sigma[part] * normal)
        whole: np.ndarray = np.rint(tokens.clip(self.min_tokens, self.max_tokens))
        return whole.astype(np.int64)
