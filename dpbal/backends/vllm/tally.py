"""What a rank's scheduler holds, counted as it changes instead of over all requests each step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tally:
    """Sums over the requests of one scheduler.

    Attributes:
        holding_tokens: Prompt and output tokens of all requests.
        waiting_tokens: The same of those that wait.
        waiting_squares: Sum of their squares, for the attention of their prefill.
    """

    holding_tokens: int = 0
    waiting_tokens: int = 0
    waiting_squares: int = 0

    def __post_init__(self) -> None:
        self._waiting: dict[str, int] = {}

    def add(self, request_id: str, tokens: int) -> None:
        """A request has come."""
        self.holding_tokens += tokens
        self.wait(request_id, tokens)

    def wait(self, request_id: str, tokens: int) -> None:
        """A request waits, for the first time or again."""
        self._waiting[request_id] = tokens
        self.waiting_tokens += tokens
        self.waiting_squares += tokens * tokens

    def admit(self, request_id: str) -> None:
        """A request waits no more; one that did not is left alone."""
        tokens = self._waiting.pop(request_id, None)
        if tokens is not None:
            self.waiting_tokens -= tokens
            self.waiting_squares -= tokens * tokens

    def generate(self, tokens: int) -> None:
        """So many output tokens have come."""
        self.holding_tokens += tokens

    def remove(self, request_id: str, tokens: int) -> None:
        """A request has gone, with so many prompt and output tokens."""
        self.admit(request_id)
        self.holding_tokens -= tokens
