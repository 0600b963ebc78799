"""A JSONL file of one's own, with block hashes if they are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dpbal.workloads.base import WORKLOADS, Requests
from dpbal.workloads.rows import Hash, read_jsonl
from dpbal.workloads.trace import Trace, in_order, too_many_hashes
from dpbal.workloads.trace_csv import PlainRow


class HashedRow(PlainRow, forbid_unknown_fields=True):
    """One request, with the hashes of its prompt's blocks from the first on."""

    block_hashes: tuple[Hash, ...] = ()


@WORKLOADS.register("trace_jsonl")
@dataclass
class TraceJsonl(Trace):
    """Replay of a JSONL file of one's own, named by ``path``.

    Each line is an object with arrival_s, prompt_tokens, output_tokens, and if wanted session
    and block_hashes, a list of integers of which two prompts share as many as they share blocks.

    Args:
        hash_block_tokens: Prompt tokens that one hash stands for.
    """

    hash_block_tokens: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hash_block_tokens < 1:
            raise ValueError(f"hash_block_tokens must be at least 1, got {self.hash_block_tokens}")

    def read(self, path: Path, seed: int) -> Requests:
        """All requests of the file, in order of time."""
        rows = read_jsonl(path, HashedRow, self._check)
        return in_order(
            [row.arrival_s for row in rows],
            [row.prompt_tokens for row in rows],
            [row.output_tokens for row in rows],
            sessions=[row.session for row in rows],
            block_hashes=[row.block_hashes for row in rows],
            hash_block_tokens=self.hash_block_tokens,
        )

    def _check(self, row: HashedRow) -> str | None:
        return too_many_hashes(row.prompt_tokens, len(row.block_hashes), self.hash_block_tokens)
