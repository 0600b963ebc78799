"""Steps with their work and their seconds, to which a profile is fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WORK = ("prefill_tokens", "decode_seqs", "decode_kv_tokens", "pairs")
"""What a rank does in a step, in the order of the constants b, c, d, e."""

KINDS = ("decode", "prefill", "mixed")
"""A step is mixed if any rank prefills while any decodes."""

MANY_STEPS = 50
"""From here on a kind of steps counts in full."""


@dataclass(frozen=True)
class Samples:
    """Steps of a group, or of ranks alone.

    Attributes:
        work: ``[steps, ranks, 4]``, as ``WORK`` names it. One rank may stand for a group in which
            all do the same.
        step_s: ``[steps]``, from the start of the step to the end of its slowest rank.
        local_s: ``[steps, ranks]``, each rank's own part; None where only whole steps were timed.
    """

    work: np.ndarray
    step_s: np.ndarray
    local_s: np.ndarray | None = None

    @property
    def kinds(self) -> np.ndarray:
        """Index into ``KINDS`` of each step."""
        prefills = (self.work[:, :, 0] > 0).any(axis=1)
        decodes = (self.work[:, :, 1] > 0).any(axis=1)
        return np.where(prefills & decodes, 2, np.where(prefills, 1, 0))

    @property
    def weights(self) -> np.ndarray:
        """Of each step; they sum to one.

        Every kind counts as much as another, but one of few steps no more than these are worth.
        """
        kinds = self.kinds
        counts = np.bincount(kinds, minlength=len(KINDS))
        shares = np.minimum(counts, MANY_STEPS) / np.minimum(counts, MANY_STEPS).sum()
        return np.asarray(shares[kinds] / counts[kinds])

    @property
    def tokens_a_rank(self) -> np.ndarray:
        """``[steps]``, tokens of the group over its ranks."""
        return np.asarray(self.work[:, :, :2].sum(axis=(1, 2)) / self.work.shape[1])

    @property
    def largest_tokens(self) -> np.ndarray:
        """``[steps]``, tokens of the rank that has most."""
        return np.asarray(self.work[:, :, :2].sum(axis=2).max(axis=1))

    @property
    def is_busy(self) -> np.ndarray:
        """``[steps, ranks]``, whether the rank has work."""
        return np.asarray(self.work[:, :, :2].sum(axis=2) > 0)

    def __len__(self) -> int:
        return len(self.step_s)
