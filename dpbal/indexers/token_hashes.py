"""Hashes of token ids, chained: equal hash means that all tokens up to there are equal."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from dpbal.jit import njit

_FIRST = np.uint64(0x9E3779B185EBCA87)
_SECOND = np.uint64(0xC2B2AE3D27D4EB4F)
_THIRD = np.uint64(0x165667B19E3779F9)


def seed_of(*parts: str) -> int:
    """What the chain of a prompt begins with, the same in all processes.

    Prompts of equal tokens and other parts, such as the name of an adapter or the salt of a
    client, share nothing.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = part.encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return int.from_bytes(digest.digest(), "little", signed=True)


def token_hashes(
    token_ids: np.ndarray | Sequence[int], block_tokens: int, seed: int = 0
) -> np.ndarray:
    """Hashes of the whole blocks of a prompt.

    Args:
        token_ids: The prompt.
        block_tokens: Tokens of a block.
        seed: An int64; see ``seed_of``.

    Returns:
        ``int64[blocks]``. A prompt that differs in any token has other hashes from that block on,
        but for one chance in 2**64.

    Raises:
        ValueError: If a block has no tokens.
    """
    return extend_hash(_begin(seed), token_ids, block_tokens)


def extend_hash(
    parent: int, token_ids: np.ndarray | Sequence[int], block_tokens: int
) -> np.ndarray:
    """Hashes of the whole blocks that follow the one whose hash is ``parent``.

    Raises:
        ValueError: If a block has no tokens.
    """
    if block_tokens < 1:
        raise ValueError(f"a block has at least 1 token, got {block_tokens}")
    tokens = np.ascontiguousarray(token_ids, np.int64)
    hashes = np.empty(len(tokens) // block_tokens, np.int64)
    _chain(parent, tokens, block_tokens, hashes)
    return hashes


def _begin(seed: int) -> int:
    # what follows a block must not look like a prompt of its own
    return seed ^ 0x5851F42D4C957F2D


@njit
def _chain(parent: int, tokens: np.ndarray, block_tokens: int, hashes: np.ndarray) -> None:
    """Two lanes that take tokens in turn, both begun from the block before, mixed at the end.

    The steps are those of xxHash64 (Y. Collet): its round for each token, its avalanche for blocks.
    """
    state = np.uint64(parent)
    for block in range(hashes.size):
        left = state + _FIRST + _SECOND
        right = state ^ _THIRD
        start = block * block_tokens
        end = start + block_tokens
        for place in range(start, end - 1, 2):
            left = _round(left, tokens[place])
            right = _round(right, tokens[place + 1])
        if block_tokens % 2:
            left = _round(left, tokens[end - 1])
        state = (state ^ (_rotate(right, 18) * _SECOND)) * _FIRST + _THIRD
        state = state ^ _rotate(left, 7)
        state = (state ^ (state >> np.uint64(33))) * _SECOND
        state = (state ^ (state >> np.uint64(29))) * _THIRD
        state = state ^ (state >> np.uint64(32))
        hashes[block] = np.int64(state)


@njit
def _round(lane: np.uint64, token: int) -> np.uint64:
    return _rotate(lane + np.uint64(token) * _SECOND, 31) * _FIRST


@njit
def _rotate(word: np.uint64, bits: int) -> np.uint64:
    return (word << np.uint64(bits)) | (word >> np.uint64(64 - bits))
