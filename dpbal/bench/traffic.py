"""What happens between two dispatches of the benchmark: reports come in, requests end."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import NamedTuple

from dpbal.core import Request

HELD_PER_RANK = 8
"""Requests outstanding for each rank, on average, once the benchmark is under way."""

WAITING_SHARE = 0.25
"""Share of reports that tell of waiting requests; vLLM's score has a term for those only."""

DESCRIPTION = (
    f"before each dispatch one random rank reports what it holds and has received, and the oldest "
    f"request ends once {HELD_PER_RANK} a rank are outstanding; a report in "
    f"{1 / WAITING_SHARE:.0f} has 1 to 8 waiting; only dispatch() is timed"
)


class RankLoad(NamedTuple):
    """What a rank says of itself."""

    running: int
    waiting: int
    held_tokens: int
    waiting_tokens: int
    kv_capacity_tokens: int
    prefill_s: float
    decode_s: float


class Traffic:
    """Requests for one subject, and ranks that hold what it gave them; the same for one seed.

    Args:
        ranks: Number of ranks.
        seed: Of sizes, of waiting requests, and of who reports when.
    """

    def __init__(self, ranks: int, seed: int) -> None:
        self.ranks = ranks
        self._random = Random(seed)
        self._next_id = 0
        self._held: deque[tuple[Request, int]] = deque()
        self._counts = [0] * ranks
        self._tokens = [0] * ranks

    def next_request(self) -> Request:
        """Another request, of about a thousand tokens."""
        self._next_id += 1
        tokens = 1 + int(self._random.lognormvariate(6.8, 0.7))
        return Request(self._next_id, self._next_id * 1e-3, tokens, 512)

    def place(self, request: Request, rank: int) -> None:
        """A rank has received a request."""
        self._held.append((request, rank))
        self._counts[rank] += 1
        self._tokens[rank] += request.prompt_tokens

    def ended(self) -> Request | None:
        """The oldest request, if there are enough that one should end now."""
        if len(self._held) < HELD_PER_RANK * self.ranks:
            return None
        request, rank = self._held.popleft()
        self._counts[rank] -= 1
        self._tokens[rank] -= request.prompt_tokens
        return request

    def reporter(self) -> int:
        """The rank that reports next."""
        return self._random.randrange(self.ranks)

    def report(self, rank: int) -> RankLoad:
        """What a rank says of itself now."""
        random = self._random.random
        held, tokens = self._counts[rank], self._tokens[rank]
        waiting = 1 + int(random() * 8) if random() < WAITING_SHARE else 0
        return RankLoad(
            running=held,
            waiting=waiting,
            held_tokens=tokens,
            waiting_tokens=1000 * waiting,
            kv_capacity_tokens=max(2 * HELD_PER_RANK * 1200, tokens),
            prefill_s=0.1 * (waiting + random()),
            decode_s=1e-4 * held,
        )
