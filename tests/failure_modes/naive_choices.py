"""Whom others choose, each with its failure left in."""

from __future__ import annotations

from collections import Counter

from tests.failure_modes.plain import Plain


class FirstOfEqual(Plain):
    """SGLang's ``total_tokens.index(min(total_tokens))``, from PR #7379 to 0.5.23."""

    def choose(self) -> int:
        return min(self.candidates(), key=self.load)


class ReportsOnly(FirstOfEqual):
    """smg issue #1115, vLLM issue #22910: what is not reported is nothing, and it is all alike."""

    def charge(self, rank: int, number: int, tokens: int) -> None:
        pass


class MissingIsZero(Plain):
    """Routers that take a load they could not read for 0."""

    missing = 0

    def candidates(self) -> list[int]:
        return list(self.ranks)

    def load(self, rank: int) -> int:
        return self.reported.get(rank, self.missing)


class MissingIsMinusOne(MissingIsZero):
    """SGLang issues #28634 and #32070: every worker was parsed as -1."""

    missing = -1


class SilentIsIdle(Plain):
    """A router that drops old reports from a worker's sum (``engine_load.rs`` warns of it)."""

    max_age_s = 5.0

    def __init__(self, ranks: int) -> None:
        super().__init__(ranks)
        self.reported_s: dict[int, float] = {}

    def load(self, rank: int) -> int:
        is_fresh = self.now_s - self.reported_s.get(rank, 0.0) <= self.max_age_s
        return self.reported[rank] if is_fresh else 0

    def report(self, rank: int, tokens: int = 0, **given: object) -> None:
        now_s = given.get("now_s", 0.0)
        assert isinstance(now_s, float)
        self.reported_s[rank] = now_s
        super().report(rank, tokens, now_s=now_s)


class IgnoresStatus(Plain):
    """SGLang 0.5.23: round robin skips ranks that are not active, ``total_tokens`` does not."""

    def candidates(self) -> list[int]:
        return list(self.ranks)


class ResidentIsBusy(Plain):
    """SGLang's ``num_total_tokens``: KV in use plus what waits (issues #31170 and #33625)."""

    def report(self, rank: int, tokens: int = 0, **given: object) -> None:
        resident = given.get("resident_tokens", 0)
        assert isinstance(resident, int)
        super().report(rank, tokens + resident)


class WholePrompt(Plain):
    """SGLang's ``len(req.input_ids)``, cached or not (issues #26611 and #27174)."""


class LongestMatch(Plain):
    """Affinity without a bound: where the most of the prompt is (tpu-inference issue #3307)."""

    def __init__(self, ranks: int) -> None:
        super().__init__(ranks)
        self.holds: list[Counter[int]] = [Counter() for _ in self.ranks]

    def dispatch(
        self,
        number: int,
        tokens: int = 100,
        *,
        pinned_rank: int | None = None,
        prefix: int | None = None,
        now_s: float = 0.0,
    ) -> int:
        rank = super().dispatch(number, tokens, pinned_rank=pinned_rank)
        if prefix is not None:
            longest = max(self.ranks, key=lambda rank: self.holds[rank][prefix])
            rank = longest if self.holds[longest][prefix] else rank
            self.holds[rank][prefix] = tokens
        return rank


class ProbesTakeTurns(Plain):
    """SGLang issue #35721: health checks moved the counter of round robin on."""

    def choose(self) -> int:
        self.turn += 1
        return (self.turn - 1) % len(self.ranks)

    def probe(self) -> None:
        self.choose()
