"""A balancer as short as it can be without a failure; the naive ones each add one."""

from __future__ import annotations

from collections.abc import Sequence

from tests.failure_modes.front import Ending


class Plain:
    """What the others have in common: the least of what is known, a charge, a release.

    It has none of the failures that its heirs are here for, so a check that finds them finds what
    they have added.
    """

    def __init__(self, ranks: int) -> None:
        self.ranks = range(ranks)
        self.reported: dict[int, int] = {}
        self.in_flight: list[dict[int, int]] = [{} for _ in self.ranks]
        self.is_gone = [False] * ranks
        self.turn = 0
        self.now_s = 0.0

    def dispatch(
        self,
        number: int,
        tokens: int = 100,
        *,
        pinned_rank: int | None = None,
        prefix: int | None = None,
        now_s: float = 0.0,
    ) -> int:
        self.now_s = now_s
        rank = self.choose() if pinned_rank is None else pinned_rank
        self.charge(rank, number, tokens)
        return rank

    def charge(self, rank: int, number: int, tokens: int) -> None:
        self.in_flight[rank][number] = tokens

    def choose(self) -> int:
        loads = {rank: self.load(rank) for rank in self.candidates()}
        order = sorted(loads, key=lambda rank: (rank - self.turn) % len(self.ranks))
        rank = min(order, key=lambda rank: loads[rank])
        self.turn = rank + 1
        return rank

    def candidates(self) -> list[int]:
        alive = [rank for rank in self.ranks if not self.is_gone[rank]]
        return [rank for rank in alive if rank in self.reported] or alive

    def load(self, rank: int) -> int:
        return self.reported.get(rank, 0) + sum(self.in_flight[rank].values())

    def end(self, number: int, how: Ending = "finished") -> None:
        for charged in self.in_flight:
            charged.pop(number, None)

    def report(
        self,
        rank: int,
        tokens: int = 0,
        *,
        received: Sequence[int] = (),
        resident_tokens: int = 0,
        requests: int = 0,
        now_s: float = 0.0,
    ) -> None:
        self.now_s = now_s
        self.reported[rank] = tokens
        for number in received:
            self.in_flight[rank].pop(number, None)

    def gone(self, rank: int) -> None:
        self.is_gone[rank] = True

    def probe(self) -> None:
        pass
