"""The conversation trace that Mooncake published: long prompts, with hashes of their blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from dpbal.workloads.base import WORKLOADS, Requests
from dpbal.workloads.rows import Hash, Tokens, read_jsonl
from dpbal.workloads.trace import Trace, in_order, too_many_hashes

BIN_S = 3.0
"""The trace's timestamps are rounded down to about this many seconds."""

BLOCK_TOKENS = 512
"""Tokens that one hash of the trace stands for."""


class MooncakeRow(msgspec.Struct):
    """One line of the JSONL; the timestamp is in milliseconds."""

    timestamp: Annotated[float, msgspec.Meta(ge=0, le=1e15)]
    input_length: Tokens
    output_length: Tokens
    hash_ids: tuple[Hash, ...] = ()


@WORKLOADS.register("mooncake_conversation")
@dataclass
class MooncakeConversation(Trace):
    """Replay of an hour of conversations; also reads other files of Mooncake's format.

    Mooncake, FAST 2025; 12,031 requests, 3.40 a second, prompts of 12,035 and outputs of 343
    tokens on average; 38 % of the prompts' whole blocks were seen before in the trace.

    Args:
        spread_bins: Spread the arrivals of one timestamp evenly at random up to the next, at
            most 3 s, by the seed and in the file's order; false replays them all at once.
    """

    published_file: ClassVar[str] = "mooncake_conversation.jsonl"
    published_in: ClassVar[str] = (
        "kvcache-ai/Mooncake, FAST25-release/traces/conversation_trace.jsonl, Apache-2.0"
    )

    spread_bins: bool = True

    def read(self, path: Path, seed: int) -> Requests:
        """All requests of the file, in order of time."""
        rows = read_jsonl(path, MooncakeRow, _check)
        requests = in_order(
            [row.timestamp / 1000 for row in rows],
            [row.input_length for row in rows],
            [row.output_length for row in rows],
            block_hashes=[row.hash_ids for row in rows],
            hash_block_tokens=BLOCK_TOKENS,
        )
        if not self.spread_bins:
            return requests
        return replace(requests, arrival_s=spread(requests.arrival_s, seed))


def spread(arrival_s: np.ndarray, seed: int) -> np.ndarray:
    """Times of equal arrivals drawn evenly from there to the next arrival, at most 3 s on."""
    starts_s, bins = np.unique(arrival_s, return_inverse=True)
    widths_s = np.minimum(np.diff(starts_s, append=np.inf), BIN_S)
    shifts = np.random.default_rng(seed).random(len(arrival_s))
    shifts = shifts[np.lexsort((shifts, bins))]  # in order within each bin
    times_s: np.ndarray = starts_s[bins] + widths_s[bins] * shifts
    return times_s


def _check(row: MooncakeRow) -> str | None:
    return too_many_hashes(row.input_length, len(row.hash_ids), BLOCK_TOKENS)
