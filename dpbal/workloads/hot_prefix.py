"""Random requests of which many begin alike: a stress of rules that follow prefixes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpbal.workloads.base import WORKLOADS, Requests
from dpbal.workloads.lengths import MAX_TOKENS
from dpbal.workloads.synthetic import Stream, Synthetic


@WORKLOADS.register("hot_prefix")
@dataclass
class HotPrefix(Synthetic):
    """Random requests, each a long prefix and a tail of its own; most share a prefix.

    A request's prefix is with probability ``share`` one of a few, each as likely, and otherwise
    nobody else's. All prompts have hashes, and all prefixes the same length, so that requests
    differ in nothing but what they share.

    Args:
        prompt: Lengths of the tails.
        share: Share of the requests whose prefix is a shared one.
        prefixes: How many shared ones there are.
        prefix_tokens: Length of every prefix.
        hash_block_tokens: Tokens that one hash stands for; a partial block has no hash.
    """

    share: float = 0.9
    prefixes: int = 1
    prefix_tokens: int = 8192
    hash_block_tokens: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be from 0 to 1, got {self.share}")
        for name in ("prefixes", "prefix_tokens", "hash_block_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.share > 0 and self.prefix_tokens < self.hash_block_tokens:
            raise ValueError(
                f"prefix_tokens must fill a block of hash_block_tokens={self.hash_block_tokens} to "
                f"be shared, got {self.prefix_tokens}; or give share=0"
            )
        if self.prefix_tokens + self.prompt.max_tokens > MAX_TOKENS:
            raise ValueError(
                f"prefix_tokens and prompt.max_tokens must be at most {MAX_TOKENS} together, "
                f"got {self.prefix_tokens} and {self.prompt.max_tokens}"
            )

    def generate(self, seed: int) -> Requests:
        """The requests, at a mean of one a second; the same for the same seed."""
        tails = super().generate(seed)
        prompt_tokens = tails.prompt_tokens + self.prefix_tokens
        hashes, offsets = self._hashes(prompt_tokens, self._shared(len(tails), seed))
        return Requests(
            arrival_s=tails.arrival_s,
            prompt_tokens=prompt_tokens,
            output_tokens=tails.output_tokens,
            block_hashes=hashes,
            hash_offsets=offsets,
            hash_block_tokens=self.hash_block_tokens,
        )

    def _shared(self, count: int, seed: int) -> np.ndarray:
        """``int64[count]``: which shared prefix each request has, -1 for one of its own."""
        share_seed, prefix_seed = Stream.PREFIXES.seed(seed).spawn(2)
        is_shared = np.random.default_rng(share_seed).random(count) < self.share
        prefix = np.random.default_rng(prefix_seed).integers(self.prefixes, size=count)
        return np.where(is_shared, prefix, -1)

    def _hashes(
        self, prompt_tokens: np.ndarray, shared: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The block hashes: those of the shared prefixes first, the others all different."""
        blocks = prompt_tokens // self.hash_block_tokens
        offsets = np.concatenate([[0], np.cumsum(blocks)])
        common = self.prefix_tokens // self.hash_block_tokens
        hashes = np.arange(offsets[-1]) + self.prefixes * common
        rows = np.flatnonzero(shared >= 0)
        places = offsets[rows, None] + np.arange(common)
        hashes[places] = shared[rows, None] * common + np.arange(common)
        return hashes, offsets
