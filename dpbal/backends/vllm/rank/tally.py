"""What a rank's scheduler holds, counted as it changes instead of over all requests each step."""

from __future__ import annotations

from dataclasses import dataclass

from dpbal.backends.vllm.rank.line import Line, Waiting


@dataclass
class Tally:
    """Sums over the requests of one scheduler.

    Attributes:
        holding_tokens: Prompt and output tokens of all requests.
        waiting_tokens: The same of those that wait.
        waiting_missing: Those of them that are not expected in the prefix cache.
        waiting_squares: Sum of ``L**2 - c**2`` over L tokens of which c are expected there, for the
            attention of their prefill.
        line: Those that wait, one by one.
    """

    holding_tokens: int = 0
    waiting_tokens: int = 0
    waiting_missing: int = 0
    waiting_squares: int = 0

    def __post_init__(self) -> None:
        self.line = Line()
        # when those without a token came: the first of the new ones is the oldest of them, and of
        # those that wait again there are few
        self._new: dict[str, float] = {}
        self._again: dict[str, float] = {}

    @property
    def oldest_arrival_s(self) -> float | None:
        """When the oldest request came that waits for its first token; None without one."""
        oldest_s = next(iter(self._new.values()), None)
        for arrival_s in self._again.values():
            oldest_s = arrival_s if oldest_s is None else min(oldest_s, arrival_s)
        return oldest_s

    def add(self, request_id: str, tokens: int, arrival_s: float) -> None:
        """A request has come, and waits; those before it came earlier."""
        self.holding_tokens += tokens
        self._new[request_id] = arrival_s
        self.line.join(request_id, tokens, arrival_s)
        self._count(Waiting(tokens))

    def expect(self, request_id: str, cached_tokens: int) -> None:
        """So many leading tokens of a request that waits are expected in the prefix cache.

        They count as computed until it is admitted, or until it waits again.
        """
        waiting = self.line.find(request_id)
        if waiting is None:
            return
        cached_tokens = max(0, min(cached_tokens, waiting.tokens - 1))
        self.line.expect(request_id, cached_tokens)
        self._discount(waiting)
        self._count(Waiting(waiting.tokens, cached_tokens))

    def expected(self, request_id: str) -> int:
        """Tokens of a request that waits that are expected in the prefix cache."""
        waiting = self.line.find(request_id)
        return 0 if waiting is None else waiting.cached

    def wait(self, request_id: str, tokens: int, arrival_s: float | None) -> None:
        """A request waits again, before all others, or has got tokens while it waits.

        Args:
            request_id: Which.
            tokens: Its prompt and output tokens.
            arrival_s: When it came, or None if it has had its first token.
        """
        before = self.line.come_back(request_id, tokens, arrival_s)
        if before is not None:
            self._leave(request_id, before)
        if arrival_s is not None:
            self._again[request_id] = arrival_s
        self._count(Waiting(tokens))

    def admit(self, request_id: str) -> None:
        """A request waits no more; one that did not is left alone."""
        waited = self.line.leave(request_id)
        if waited is not None:
            self._leave(request_id, waited)

    def generate(self, tokens: int) -> None:
        """So many tokens have come to requests that are here."""
        self.holding_tokens += tokens

    def remove(self, request_id: str, tokens: int) -> None:
        """A request has gone, with so many prompt and output tokens."""
        self.admit(request_id)
        self.holding_tokens -= tokens

    def _count(self, waiting: Waiting) -> None:
        self.waiting_tokens += waiting.tokens
        self.waiting_missing += waiting.missing
        self.waiting_squares += waiting.squares

    def _discount(self, waiting: Waiting) -> None:
        self.waiting_tokens -= waiting.tokens
        self.waiting_missing -= waiting.missing
        self.waiting_squares -= waiting.squares

    def _leave(self, request_id: str, waited: Waiting) -> None:
        self._discount(waited)
        self._new.pop(request_id, None)
        self._again.pop(request_id, None)
