"""Random conversations: a turn's prompt is everything that was said before, and something new."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from dpbal.workloads.base import WORKLOADS, Requests
from dpbal.workloads.lengths import MAX_TOKENS, LengthPart, Lengths
from dpbal.workloads.synthetic import Stream, Synthetic


@WORKLOADS.register("conversations")
@dataclass
class Conversations(Synthetic):
    """Random requests of which some continue an earlier one and share its blocks.

    Each arrival is with probability ``follow_up_share`` the next turn of a conversation whose
    last turn lies an exponentially distributed number of requests back. Its prompt is that
    turn's prompt and output plus new tokens, and its first block hashes are that prompt's. It
    opens a conversation instead where there is none so far back, or where the prompt would
    exceed ``prompt.max_tokens``. All prompts begin with the same ``shared_prefix_tokens``.

    Args:
        prompt: Lengths of the first prompts, the shared prefix included.
        follow_up: New tokens of a follow-up turn.
        follow_up_share: Share of the requests that continue a conversation.
        turn_gap_requests: Mean number of requests between two turns of a conversation.
        shared_prefix_tokens: Tokens that all prompts begin with, such as a system prompt.
        hash_block_tokens: Tokens that one hash stands for; a partial block has no hash.
    """

    follow_up: Lengths = field(default_factory=lambda: Lengths([LengthPart(mean_tokens=100)]))
    follow_up_share: float = 0.5
    turn_gap_requests: float = 200.0
    shared_prefix_tokens: int = 512
    hash_block_tokens: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.follow_up_share <= 1:
            raise ValueError(f"follow_up_share must be from 0 to 1, got {self.follow_up_share}")
        if not self.turn_gap_requests > 0:
            raise ValueError(f"turn_gap_requests must be positive, got {self.turn_gap_requests}")
        if not 0 <= self.shared_prefix_tokens <= MAX_TOKENS:
            raise ValueError(
                f"shared_prefix_tokens must be from 0 to {MAX_TOKENS}, "
                f"got {self.shared_prefix_tokens}"
            )
        if self.hash_block_tokens < 1:
            raise ValueError(f"hash_block_tokens must be at least 1, got {self.hash_block_tokens}")

    def generate(self, seed: int) -> Requests:
        """The requests, at a mean of one a second; the same for the same seed."""
        single = super().generate(seed)
        count = len(single)
        prompts = single.prompt_tokens.tolist()
        outputs = single.output_tokens.tolist()
        new_tokens = self.follow_up.draw(count, Stream.FOLLOW_UPS.seed(seed)).tolist()
        targets = self._targets(count, Stream.PARENTS.seed(seed)).tolist()
        session = np.arange(count)
        shared_tokens = np.full(count, self.shared_prefix_tokens)
        parent = np.full(count, -1)
        last_turns: list[int] = []  # of each conversation, in order of arrival
        for i in range(count):
            place = bisect_right(last_turns, targets[i]) - 1
            if place >= 0:
                j = last_turns[place]
                prompt = prompts[j] + outputs[j] + new_tokens[i]
                if prompt <= self.prompt.max_tokens:
                    prompts[i] = prompt
                    session[i], parent[i], shared_tokens[i] = session[j], j, prompts[j]
                    del last_turns[place]
            last_turns.append(i)
        prompt_tokens = np.array(prompts)
        hashes, offsets = self._hashes(prompt_tokens, shared_tokens, parent)
        return Requests(
            arrival_s=single.arrival_s,
            prompt_tokens=prompt_tokens,
            output_tokens=single.output_tokens,
            block_hashes=hashes,
            hash_offsets=offsets,
            hash_block_tokens=self.hash_block_tokens,
            session=session,
        )

    def _targets(self, count: int, seed: np.random.SeedSequence) -> np.ndarray:
        """Which request to continue, or the newest older one; negative to open a conversation."""
        follow_seed, gap_seed = seed.spawn(2)
        follows = np.random.default_rng(follow_seed).random(count) < self.follow_up_share
        gaps = np.random.default_rng(gap_seed).exponential(self.turn_gap_requests, count)
        return np.where(follows, np.arange(count) - np.ceil(gaps), -1).astype(np.int64)

    def _hashes(
        self, prompt_tokens: np.ndarray, shared_tokens: np.ndarray, parent: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The block hashes: a prompt's first blocks are its parent's, the others are new."""
        blocks = prompt_tokens // self.hash_block_tokens
        offsets = np.concatenate([[0], np.cumsum(blocks)])
        common = self.shared_prefix_tokens // self.hash_block_tokens
        hashes = np.arange(offsets[-1]) + common
        inherited = np.minimum(shared_tokens // self.hash_block_tokens, blocks)
        bounds = zip(offsets.tolist(), inherited.tolist(), parent.tolist(), strict=False)
        for start, kept, j in bounds:
            if j < 0:
                hashes[start : start + kept] = np.arange(kept)
            else:
                hashes[start : start + kept] = hashes[offsets[j] : offsets[j] + kept]
        return hashes, offsets
