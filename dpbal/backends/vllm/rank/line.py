"""The requests that wait in one scheduler, in arrays that compiled code can walk in order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FIRST_ROOM = 1024
"""Places to begin with; a quarter of them before the line, for those that come back."""

GONE = 0
"""Tokens of a place that nobody holds any more; a request has one at least."""


class Admissible(NamedTuple):
    """The head of the line, as far as free slots and KV blocks would admit it now.

    Attributes:
        requests: How many.
        tokens: Their prompt and output tokens, without those that are expected in the prefix cache.
        squares: Sum of ``L**2 - c**2`` over L tokens of which c are expected there.
        wait_s: Ages of those without a token, added up.
        oldest_wait_s: Age of the first in the whole line that has no token; 0 for none.
    """

    requests: int
    tokens: int
    squares: int
    wait_s: float
    oldest_wait_s: float


class Waiting(NamedTuple):
    """A request in the line.

    Attributes:
        tokens: Its prompt and output tokens.
        cached: Leading ones of them that are expected in the prefix cache.
    """

    tokens: int
    cached: int = 0

    @property
    def missing(self) -> int:
        """Tokens to prefill."""
        return self.tokens - self.cached

    @property
    def squares(self) -> int:
        """What the attention of its prefill grows with."""
        return self.tokens * self.tokens - self.cached * self.cached


class Line:
    """Waiting requests: new ones join the end, preempted ones the front.

    That is the order of admission with vLLM's ``fcfs``. With ``priority`` it is one of arrival, and
    what can be admitted an estimate.
    """

    def __init__(self) -> None:
        from dpbal.backends.vllm.rank.line_walk import admissible

        self._walk = admissible
        self._places: dict[str, int] = {}
        self._make(FIRST_ROOM)

    def join(self, request_id: str, tokens: int, arrival_s: float | None) -> None:
        """A request waits behind all others.

        Args:
            request_id: Which.
            tokens: Its prompt and output tokens.
            arrival_s: When it came, or None if it has had its first token.
        """
        if self._end == self._room:
            self._move()
        self._put(request_id, self._end, tokens, arrival_s)
        self._end += 1

    def expect(self, request_id: str, cached: int) -> None:
        """So many tokens of a request that waits are expected in the prefix cache."""
        self._cached[self._places[request_id]] = cached

    def find(self, request_id: str) -> Waiting | None:
        """A request as it waits; None if it does not."""
        place = self._places.get(request_id)
        return None if place is None else self._at(place)

    def come_back(self, request_id: str, tokens: int, arrival_s: float | None) -> Waiting | None:
        """A request waits before all others, or has got tokens where it waits; see ``join``.

        Nothing of it is expected in the prefix cache.

        Returns:
            As what it has waited there, or None if it did not wait.
        """
        place = self._places.get(request_id)
        before = None if place is None else self._at(place)
        if place is None:
            if self._begin == 0:
                self._move()
            self._begin -= 1
            place = self._begin
        self._put(request_id, place, tokens, arrival_s)
        return before

    def leave(self, request_id: str) -> Waiting | None:
        """A request waits no more: as what it has waited, or None if it did not wait."""
        place = self._places.pop(request_id, None)
        if place is None:
            return None
        waited = self._at(place)
        self._tokens[place] = GONE
        while self._begin < self._end and self._tokens[self._begin] == GONE:
            self._begin += 1
        return waited

    def admissible(self, slots: int, free_blocks: int, block_size: int, now_s: float) -> Admissible:
        """What could be admitted now, in order, until a slot or a block is missing."""
        if self._begin == self._end:
            return NOBODY
        return Admissible(
            *self._walk(
                self._tokens, self._cached, self._arrivals_s, self._begin, self._end,
                slots, free_blocks, block_size, now_s,
            )
        )  # fmt: skip

    def _at(self, place: int) -> Waiting:
        return Waiting(int(self._tokens[place]), int(self._cached[place]))

    def _put(self, request_id: str, place: int, tokens: int, arrival_s: float | None) -> None:
        self._places[request_id] = place
        self._tokens[place] = tokens
        self._cached[place] = 0
        self._arrivals_s[place] = np.nan if arrival_s is None else arrival_s

    def _make(self, room: int) -> None:
        self._room = room
        self._tokens = np.zeros(room, np.int64)
        self._cached = np.zeros(room, np.int64)
        self._arrivals_s = np.zeros(room)
        self._begin = self._end = room // 4

    def _move(self) -> None:
        """Close the gaps, and make room at both ends."""
        tokens, cached, arrivals_s = self._tokens, self._cached, self._arrivals_s
        order = sorted(self._places.items(), key=lambda item: item[1])
        self._make(max(FIRST_ROOM, 4 * len(order)))
        for request_id, place in order:
            self._places[request_id] = self._end
            self._tokens[self._end] = tokens[place]
            self._cached[self._end] = cached[place]
            self._arrivals_s[self._end] = arrivals_s[place]
            self._end += 1


NOBODY = Admissible(0, 0, 0, 0.0, 0.0)
"""What an empty line admits."""
