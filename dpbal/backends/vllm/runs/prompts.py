"""Prompts of the right lengths, which share what the requests of a trace share."""

from __future__ import annotations

import numpy as np

from dpbal.backends.vllm.emulated.model import VOCABULARY
from dpbal.core import Request

FIRST = 16
"""Token ids below are left to special tokens."""

BASE = VOCABULARY - FIRST


def prompt(request: Request, number: int, hash_block_tokens: int) -> list[int]:
    """The token ids of a request's prompt.

    Prefix blocks with equal hashes have equal tokens; whatever is not known to be shared begins
    with tokens of this request alone, so that nobody's prefix cache finds it.

    Args:
        request: Whose prompt; its block hashes say what it shares.
        number: Unique among the requests of a run.
        hash_block_tokens: Tokens that one hash stands for.
    """
    tokens = np.full(request.prompt_tokens, FIRST, np.int64)
    shared = 0
    if request.block_hashes is not None:
        for k, block in enumerate(request.block_hashes.tolist()):
            start = k * hash_block_tokens
            _mark(tokens[start : start + hash_block_tokens], block, 0)
        shared = min(len(request.block_hashes) * hash_block_tokens, request.prompt_tokens)
    _mark(tokens[shared:], number, 1)
    return tokens.tolist()


def _mark(tokens: np.ndarray, number: int, kind: int) -> None:
    """Make tokens unlike those of another number or kind: the kind, then the number's digits."""
    marks = [kind]
    left = number & 0xFFFF_FFFF_FFFF_FFFF
    while left or len(marks) == 1:
        left, digit = divmod(left, BASE)
        marks.append(digit)
    count = min(len(tokens), len(marks))
    tokens[:count] = np.add(marks[:count], FIRST)
