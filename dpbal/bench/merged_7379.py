"""The part of a dispatch of SGLang's PR #7379, as merged, that its lock guards; to compare with."""

from __future__ import annotations

import multiprocessing
import os
import time
from random import Random
from typing import Any

from dpbal.bench.transport_case import DISPATCH, LOOK, RATE, Case, Spread
from dpbal.sharedmem import end_with_parent

IN_FLIGHT = 64
"""Requests of each rank that it has not acknowledged, for it did so every 40 steps."""

FEWEST = 20


class Shared:
    """What controller and schedulers share, behind a manager's lock.

    The first time that it is set, a list of dictionaries takes the place of the manager's proxies,
    as there: since then every look copies all, and every change sends all.

    Reference: SGLang 0.4.10.post2, ``managers/utils.py``, ``DPBalanceMeta``.
    """

    def __init__(self, manager: Any, ranks: int) -> None:
        self.mutex = manager.Lock()
        self._state = manager.Namespace()
        self._state.local_tokens = manager.list([0] * ranks)
        self._state.onfly_info = manager.list([manager.dict() for _ in range(ranks)])

    def local_tokens(self) -> list[int]:
        """Tokens that each rank holds, as it said last."""
        return list(self._state.local_tokens)

    def set_local_tokens(self, tokens: list[int]) -> None:
        """Say them all."""
        self._state.local_tokens = tokens

    def onfly_info(self) -> list[dict[int, int]]:
        """Of each rank, tokens of what it was sent and has not acknowledged, by id."""
        return [dict(onfly) for onfly in self._state.onfly_info]

    def set_onfly_info(self, onfly: list[dict[int, int]]) -> None:
        """Say them all."""
        self._state.onfly_info = onfly


def choose(shared: Shared, request_id: int, tokens: int) -> int:
    """Choose a rank and charge it there; nanoseconds of that which is neither look nor change.

    Reference: SGLang 0.4.10.post2, ``data_parallel_controller.py``, ``minimum_tokens_scheduler``.
    """
    with shared.mutex:
        local_tokens = shared.local_tokens()
        onfly = shared.onfly_info()
        looked_ns = time.perf_counter_ns()
        total = [
            local + sum(flying.values()) for local, flying in zip(local_tokens, onfly, strict=True)
        ]
        rank = total.index(min(total))
        onfly[rank][request_id] = tokens
        chosen_ns = time.perf_counter_ns()
        shared.set_onfly_info(onfly)
    return chosen_ns - looked_ns


def measure(case: Case) -> dict[str, Spread]:
    """Time it with ``IN_FLIGHT`` requests a rank, one dispatch after the other, ranks silent."""
    end_with_parent(os.getppid())
    random = Random(case.seed)
    whole_us: list[list[float]] = []
    shared_us: list[list[float]] = []
    with multiprocessing.get_context("spawn").Manager() as manager:
        shared = Shared(manager, case.ranks)
        for repeat in range(-1, case.repeats):
            full = [
                {rank * IN_FLIGHT + k: random.randrange(1, 2000) for k in range(IN_FLIGHT)}
                for rank in range(case.ranks)
            ]
            shared.set_local_tokens([random.randrange(100_000) for _ in range(case.ranks)])
            whole: list[float] = []
            exchange: list[float] = []
            end_s = time.monotonic() + (0.1 if repeat < 0 else case.seconds)
            while time.monotonic() < end_s or len(whole) < FEWEST:
                shared.set_onfly_info(full)
                before_ns = time.perf_counter_ns()
                own_ns = choose(shared, -1, 1000)
                took_ns = time.perf_counter_ns() - before_ns
                whole.append(took_ns / 1e3)
                exchange.append((took_ns - own_ns) / 1e3)
            if repeat >= 0:
                whole_us.append(whole)
                shared_us.append(exchange)
    rates = [[1e6 * len(found) / sum(found)] for found in whole_us]
    spreads = {
        LOOK: Spread.of(shared_us),
        DISPATCH: Spread.of(whole_us),
        RATE: Spread.of(rates),
    }
    return {what: spread for what, spread in spreads.items() if spread is not None}
