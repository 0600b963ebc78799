"""Counts of what a rank holds, each with the failure that others had."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Held:
    """A request of one rank.

    Attributes:
        prompt: Tokens of its prompt.
        tokens: With those that it has got.
        waits: Whether it waits.
        has_waited: Whether it has waited twice, since it was retracted.
    """

    prompt: int
    tokens: int
    waits: bool = True
    has_waited: bool = False


class Walk:
    """Counts by a walk over all requests: right, and as slow as the queue is long."""

    def __init__(self) -> None:
        self.requests: dict[str, Held] = {}

    def add(self, request_id: str, tokens: int) -> None:
        self.requests[request_id] = Held(tokens, tokens)

    def admit(self, request_id: str) -> None:
        self.requests[request_id].waits = False

    def generate(self, request_id: str) -> None:
        self.requests[request_id].tokens += 1

    def retract(self, request_id: str) -> None:
        held = self.requests[request_id]
        held.waits = held.has_waited = True

    def remove(self, request_id: str) -> None:
        del self.requests[request_id]

    def report(self) -> tuple[int, int]:
        """Tokens held, and those of them that wait."""
        held = self.requests.values()
        return sum(h.tokens for h in held), sum(h.tokens for h in held if h.waits)


class PromptIn(Walk):
    """SGLang #13203, undone by #13991: a retracted request came with its prompt and left with more.

    The count of what waits was kept as requests came and went.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0

    def add(self, request_id: str, tokens: int) -> None:
        super().add(request_id, tokens)
        self.waiting += tokens

    def admit(self, request_id: str) -> None:
        super().admit(request_id)
        self.waiting -= self.requests[request_id].tokens

    def retract(self, request_id: str) -> None:
        super().retract(request_id)
        self.waiting += self.requests[request_id].prompt

    def report(self) -> tuple[int, int]:
        return super().report()[0], self.waiting


class WithoutRetracted(Walk):
    """SGLang before #13991: the retracted queue was in no count."""

    def report(self) -> tuple[int, int]:
        held = [h for h in self.requests.values() if not (h.waits and h.has_waited)]
        return sum(h.tokens for h in held), sum(h.tokens for h in held if h.waits)


class PreallocatedTwice(Walk):
    """SGLang #25736: what decode had allocated ahead was in use, and in the queue as well."""

    def report(self) -> tuple[int, int]:
        tokens, waiting = super().report()
        return tokens + waiting, waiting


class RunningSum:
    """Seconds in flight as one running sum: what floats lose stays in it."""

    def __init__(self, ranks: int) -> None:
        self.totals = [0.0] * ranks
        self.sent: dict[int, tuple[int, float]] = {}

    def charge(self, number: int, rank: int, seconds: float) -> None:
        self.totals[rank] += seconds
        self.sent[number] = rank, seconds

    def release(self, number: int) -> None:
        rank, seconds = self.sent.pop(number)
        self.totals[rank] -= seconds

    def seconds(self) -> list[float]:
        return list(self.totals)
