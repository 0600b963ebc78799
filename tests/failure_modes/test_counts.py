"""What ranks and ledgers count as it changes is what a recount would give, at the price of none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random
from types import FrameType
from typing import Any, Protocol

from dpbal.backends.vllm.rank.tally import Tally
from dpbal.core import Request
from dpbal.ledger import Ledger
from tests.failure_modes import naive_counts as naive
from tests.failure_modes.finding import finds


class Counts(Protocol):
    """What a rank's scheduler tells whoever counts for it."""

    def add(self, request_id: str, tokens: int) -> None: ...

    def admit(self, request_id: str) -> None: ...

    def generate(self, request_id: str) -> None:
        """A request that runs has got a token."""

    def retract(self, request_id: str) -> None:
        """A request that runs waits again."""

    def remove(self, request_id: str) -> None: ...

    def report(self) -> tuple[int, int]:
        """Tokens held, and those of them that wait."""


class Tallied:
    """dpbal's tally, as its scheduler inside vLLM keeps it."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.tokens: dict[str, int] = {}

    def add(self, request_id: str, tokens: int) -> None:
        self.tokens[request_id] = tokens
        self.tally.add(request_id, tokens, 0.0)

    def admit(self, request_id: str) -> None:
        self.tally.admit(request_id)

    def generate(self, request_id: str) -> None:
        self.tokens[request_id] += 1
        self.tally.generate(1)

    def retract(self, request_id: str) -> None:
        self.tally.wait(request_id, self.tokens[request_id], None)

    def remove(self, request_id: str) -> None:
        self.tally.remove(request_id, self.tokens.pop(request_id))

    def report(self) -> tuple[int, int]:
        return self.tally.holding_tokens, self.tally.waiting_tokens


MakeCounts = Callable[[], Counts]
OURS = {"dpbal": Tallied, "walk": naive.Walk}


@finds(OURS, {naive.PromptIn: "a recount gives", naive.WithoutRetracted: "a recount gives"})
def test_f09_what_is_counted_as_it_changes_is_what_a_recount_gives(subject: MakeCounts) -> None:
    counts, random = subject(), Random(1)
    waiting: dict[str, int] = {}
    running: dict[str, int] = {}
    for turn in range(2000):
        act = random.choice(["add", "admit", "generate", "generate", "retract", "remove"])
        if act == "add":
            waiting[str(turn)] = random.randint(1, 500)
            counts.add(str(turn), waiting[str(turn)])
        elif act == "admit" and waiting:
            one = random.choice(list(waiting))
            running[one] = waiting.pop(one)
            counts.admit(one)
        elif act == "generate":
            for one in running:
                running[one] += 1
                counts.generate(one)
        elif running:
            one = random.choice(list(running))
            tokens = running.pop(one)
            if act == "retract":
                waiting[one] = tokens
                counts.retract(one)
            else:
                counts.remove(one)
        recount = sum(waiting.values()) + sum(running.values()), sum(waiting.values())
        assert counts.report() == recount, f"a recount gives {recount}"


@finds(
    OURS,
    {naive.WithoutRetracted: "of 120 tokens", naive.PreallocatedTwice: "of 120 tokens"},
)
def test_f20_a_retracted_request_counts_once(subject: MakeCounts) -> None:
    counts = subject()
    counts.add("1", 100)
    counts.admit("1")
    for _ in range(20):
        counts.generate("1")
    assert counts.report() == (120, 0)
    counts.retract("1")
    assert counts.report() == (120, 120), "a request of 120 tokens waits again"


class Seconds(Protocol):
    """What a dispatcher has in flight, in seconds of prefill."""

    def __init__(self, ranks: int) -> None: ...

    def charge(self, number: int, rank: int, seconds: float) -> None: ...

    def release(self, number: int) -> None: ...

    def seconds(self) -> list[float]:
        """For each rank."""


class Ledgered:
    """dpbal's ledger."""

    def __init__(self, ranks: int) -> None:
        self.ledger = Ledger(ranks)

    def charge(self, number: int, rank: int, seconds: float) -> None:
        self.ledger.charge(Request(number, 0.0, 10), rank, seconds)

    def release(self, number: int) -> None:
        self.ledger.release(number)

    def seconds(self) -> list[float]:
        seconds: list[float] = self.ledger.in_flight.prefill_s.tolist()
        return seconds


@finds(Ledgered, {naive.RunningSum: "nothing is in flight, and yet"})
def test_f09_a_rank_with_nothing_in_flight_has_exactly_nothing(subject: type[Seconds]) -> None:
    flight, random = subject(2), Random(1)
    for number in range(1000):
        flight.charge(number, number % 2, random.random())
    for number in range(1000):
        flight.release(number)
    assert flight.seconds() == [0.0, 0.0], "nothing is in flight, and yet there is a load"


@finds(Tallied, {naive.Walk: "times the work"})
def test_f28_a_report_takes_no_longer_with_a_longer_queue(subject: MakeCounts) -> None:
    short, long = subject(), subject()
    for number in range(1000):
        long.add(str(number), 100)
        if number < 10:
            short.add(str(number), 100)
    ratio = bytecodes(long.report) / bytecodes(short.report)
    assert ratio < 2, f"a report of 1,000 requests is {ratio:.0f} times the work of one of 10"


def bytecodes(function: Callable[[], Any]) -> int:
    """Instructions of Python that a call takes: work, on any machine."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count
