"""What indexers should know, in a few lines of dictionaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from dpbal.core import Request

BLOCK_TOKENS = 16


def prompt(number: int | str, hashes: Sequence[int] | np.ndarray | None) -> Request:
    """A request whose blocks have these hashes."""
    array = None if hashes is None else np.array(hashes, np.int64)
    tokens = 1 + BLOCK_TOKENS * (0 if array is None else len(array))
    return Request(number, 0.0, tokens, block_hashes=array, block_tokens=BLOCK_TOKENS)


def leading(hashes: Sequence[int], holds: Callable[[int], bool]) -> int:
    """Blocks before the first that is not held."""
    return next((n for n, key in enumerate(hashes) if not holds(key)), len(hashes))


class NaiveRecord:
    """Blocks of each rank by when they were last used, the least recently used first."""

    def __init__(self, ranks: int, limit: int, max_age_s: float) -> None:
        self.limit, self.max_age_s = limit, max_age_s
        self.blocks: list[dict[int, float]] = [{} for _ in range(ranks)]

    @property
    def sizes(self) -> list[int]:
        return [len(blocks) for blocks in self.blocks]

    def match(self, hashes: Sequence[int]) -> list[int]:
        return [leading(hashes, blocks.__contains__) for blocks in self.blocks]

    def dispatched(self, hashes: Sequence[int], rank: int, now_s: float) -> None:
        for held in self.blocks:
            for key in [key for key, used_s in held.items() if used_s < now_s - self.max_age_s]:
                del held[key]
        held = self.blocks[rank]
        for key in reversed(hashes[: self.limit]):
            held.pop(key, None)
            held[key] = now_s
            if len(held) > self.limit:
                del held[next(iter(held))]

    def forget(self, rank: int) -> None:
        self.blocks[rank].clear()


class NaiveEvents:
    """Copies of each block in each rank, and the requests on their way."""

    def __init__(self, ranks: int) -> None:
        self.copies: list[Counter[int]] = [Counter() for _ in range(ranks)]
        self.requests: dict[int, tuple[int, Sequence[int]]] = {}
        self.unknown_removals = 0

    @property
    def sizes(self) -> list[int]:
        return [len(+copies) for copies in self.copies]

    def match(self, hashes: Sequence[int]) -> list[int]:
        def of(rank: int) -> int:
            coming = {k for sent, keys in self.requests.values() if sent == rank for k in keys}
            return leading(hashes, lambda key: self.copies[rank][key] > 0 or key in coming)

        return [of(rank) for rank in range(len(self.copies))]

    def apply(self, rank: int, key: int, stored: bool) -> None:
        if not stored and self.copies[rank][key] == 0:
            self.unknown_removals += 1
        else:
            self.copies[rank][key] += 1 if stored else -1

    def clear(self, rank: int) -> None:
        self.copies[rank].clear()

    def forget(self, rank: int) -> None:
        self.requests = {k: v for k, v in self.requests.items() if v[0] != rank}
