"""What others hold to be on its way or outstanding, each with its failure left in."""

from __future__ import annotations

from collections.abc import Sequence

from tests.failure_modes.front import Ending
from tests.failure_modes.plain import Plain


class EveryReportOverwrites(Plain):
    """SGLang 0.5.23, ``DPBudget.update_budget``: a new snapshot is the load, whatever was sent."""

    def report(self, rank: int, tokens: int = 0, **given: object) -> None:
        super().report(rank, tokens)
        self.in_flight[rank].clear()


class OnlyRanksRelease(Plain):
    """PR #7379: a request is on the fly until its rank has gathered its id, if it ever does."""

    def end(self, number: int, how: Ending = "finished") -> None:
        pass


class PinnedIsFree(Plain):
    """SGLang issue #35964: ``maybe_external_dp_rank_routing`` returns before the charge."""

    def dispatch(
        self,
        number: int,
        tokens: int = 100,
        *,
        pinned_rank: int | None = None,
        **given: object,
    ) -> int:
        return super().dispatch(number, tokens) if pinned_rank is None else pinned_rank


class KnowsEveryId(OnlyRanksRelease, PinnedIsFree):
    """SGLang 0.5.2: a pinned request keeps id -1, and ``handle_dp_balance_data`` asserts ids."""

    def report(
        self,
        rank: int,
        tokens: int = 0,
        *,
        received: Sequence[int] = (),
        **given: object,
    ) -> None:
        for number in received:
            assert number in self.in_flight[rank], "data consistency is wrong"
        super().report(rank, tokens, received=received)


class Counted(Plain):
    """Routers that count requests: one more when sent, one fewer when it ends."""

    def __init__(self, ranks: int) -> None:
        super().__init__(ranks)
        self.counts = [0] * ranks
        self.sent_to: dict[int, int] = {}

    def charge(self, rank: int, number: int, tokens: int) -> None:
        self.counts[rank] += 1
        self.sent_to[number] = rank

    def load(self, rank: int) -> int:
        return self.counts[rank]


class ForgetsDisconnects(Counted):
    """vllm-router issue #215: when a client disconnects, the count does not go down."""

    def end(self, number: int, how: Ending = "finished") -> None:
        if how == "finished" and number in self.sent_to:
            self.counts[self.sent_to.pop(number)] -= 1


class ReleasesTwice(Counted):
    """Routers whose count goes down at every word that a request has ended (SGLang #15061)."""

    def end(self, number: int, how: Ending = "finished") -> None:
        self.counts[self.sent_to[number]] -= 1


class StartsAnew(Plain):
    """SGLang's router, issue #9523: now and then, here each minute, all counts are set to zero."""

    since_s = 0.0

    def choose(self) -> int:
        if self.now_s - self.since_s >= 60:
            self.since_s = self.now_s
            for charged in self.in_flight:
                charged.clear()
        return super().choose()


class CountsTwice(Plain):
    """Routers that keep a request as their own until it ends, and add what its rank reports."""

    def report(self, rank: int, tokens: int = 0, **given: object) -> None:
        super().report(rank, tokens)


class OwnOnly(Plain):
    """Routers that go by what they have sent themselves."""

    def load(self, rank: int) -> int:
        return sum(self.in_flight[rank].values())
