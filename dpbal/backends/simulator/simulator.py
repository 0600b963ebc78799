"""The backend ``simulator``: compiled ranks, and the same Python dispatchers as anywhere else."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dpbal.backends.base import BACKENDS, REQUEST_RECORD, Backend, Parts, Records
from dpbal.budgets.base import VECTOR
from dpbal.errors import ConfigError, DpbalError
from dpbal.workloads.base import Requests

LOG = logging.getLogger(__name__)


class SimulationError(DpbalError, RuntimeError):
    """A combination that cannot go on, such as a budget that lets nobody work."""


@BACKENDS.register("simulator")
@dataclass
class Simulator(Backend):
    """Ranks as vLLM V1 schedulers whose steps take the time that the profile says.

    Args:
        max_num_batched_tokens: Most tokens in a step of a rank.
        max_num_seqs: Most requests in a rank's batch.
        block_size: Tokens in a KV block.
        kv_capacity_tokens: KV cache of a rank; None takes the profile's.
        prefix_cache: Whether each rank reuses the KV of prompts whose block hashes are known.
        max_time_s: Stop the clock then, leaving requests unfinished; None runs until all ended.
    """

    max_num_batched_tokens: int = 2048
    max_num_seqs: int = 256
    block_size: int = 16
    kv_capacity_tokens: int | None = None
    prefix_cache: bool = True
    max_time_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_num_batched_tokens", "max_num_seqs", "block_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.kv_capacity_tokens is not None and self.kv_capacity_tokens < self.block_size:
            raise ValueError(
                f"kv_capacity_tokens must hold a block of {self.block_size} tokens, "
                f"got {self.kv_capacity_tokens}"
            )
        if self.max_time_s is not None and not self.max_time_s > 0:
            raise ValueError(f"max_time_s must be positive, got {self.max_time_s}")

    def simulator(self) -> Simulator:
        """Itself."""
        return self

    def run(
        self, requests: Requests, parts: Parts, progress: Callable[[int], None] | None = None
    ) -> Records:
        """Run all requests; see ``Backend.run``."""
        return _Run(self, requests, parts).run(progress)


class _Run:
    """One run of the simulator: the arrays, and the loop over arrivals."""

    def __init__(self, config: Simulator, requests: Requests, parts: Parts) -> None:
        from dpbal.backends.simulator import engine, memory, views
        from dpbal.jit import is_compiled

        tables = {id(dispatcher.table) for dispatcher in parts.dispatchers}
        if len(tables) != 1:
            raise ConfigError("all dispatchers of a simulated group must read the same load table")
        self._table = parts.dispatchers[0].table
        self._config = config
        self._requests = requests
        self._parts = parts
        self._code = engine
        self._is_compiled = is_compiled
        self._memory = memory
        self._addresses_of = views.addresses
        capacity = config.kv_capacity_tokens or parts.step_time.kv_capacity_tokens
        rank_engine = memory.Engine(
            config.max_num_batched_tokens,
            config.max_num_seqs,
            config.block_size,
            capacity,
            config.prefix_cache,
        )
        self._state = memory.allocate(rank_engine, parts, requests, self._table)
        self._addresses = views.addresses(self._state)
        self._vectors = np.zeros(parts.ranks, VECTOR)
        parts.budget.start(parts.ranks, parts.step_time, config.max_num_batched_tokens)
        if parts.budget.is_static:
            self._set_limits(0)

    def run(self, progress: Callable[[int], None] | None) -> Records:
        state = self._state
        engine = self._code
        self._compile()
        dispatchers = self._parts.dispatchers
        count = len(dispatchers)
        owners = np.arange(len(self._requests)) % count
        state.requests["dispatcher"] = owners
        # one element of a memoryview costs half of what it costs in numpy
        rows_rank = state.requests["rank"].data
        rows_sequence = state.requests["sequence"].data
        ended = state.clock["finished"].data
        decisions_ns: list[int] = []
        decided = decisions_ns.append
        dispatch = [d.dispatch for d in dispatchers]
        advance, arrived = engine.advance, engine.ARRIVED
        stop_s = np.inf if self._config.max_time_s is None else self._config.max_time_s
        previous = -1
        owner = 0
        now_ns = time.perf_counter_ns
        start_ns = now_ns()
        for number, request in enumerate(self._requests):
            at_s = request.arrival_s
            if at_s > stop_s:
                break
            status = advance(self._addresses, at_s, previous)
            if status != arrived:
                self._go_on(status, at_s)
            if ended[0]:
                self._finish_ended()
            before_ns = now_ns()
            placement = dispatch[owner](request, at_s)
            decided(now_ns() - before_ns)
            if number == 0:  # the first dispatch loads the policies' own compiled parts
                start_ns = now_ns()
            previous = number
            rows_rank[previous] = placement.rank
            rows_sequence[previous] = placement.sequence
            owner = (owner + 1) % count
            if progress is not None and previous % 4096 == 0:
                progress(previous)
        self._go_on(engine.advance(self._addresses, stop_s, previous), stop_s)
        self._finish_ended()
        wall_s = (now_ns() - start_ns) / 1e9
        return self._records(np.array(decisions_ns, np.int64), wall_s)

    def _compile(self) -> None:
        """Compile, or load what was compiled before, outside the measured time."""
        if not self._is_compiled("engine.advance"):
            LOG.info("compiling the simulator; the next run loads it in a second")
        self._code.advance(self._addresses, 0.0, -1)
        self._code.fill_vectors(self._addresses, self._vectors)

    def _go_on(self, status: int, until_s: float) -> None:
        """Do what the core came back for, until it has reached ``until_s``."""
        engine = self._code
        while status != engine.ARRIVED:
            if status == engine.ASK_BUDGET:
                engine.fill_vectors(self._addresses, self._vectors)
                self._set_limits(int(self._state.clock[0]["wave_step"]))
                self._state.clock["has_limits"] = True
            elif status == engine.GROW:
                self._state = self._memory.grow(self._state)
                self._addresses = self._addresses_of(self._state)
            else:
                ranks = self._state.ranks
                waiting = int(ranks["waiting"].sum() + ranks["running"].sum())
                raise SimulationError(
                    f"{type(self._parts.budget).__name__} has let no rank work for "
                    f"{engine.STALL_STEPS} steps while {waiting} requests wait"
                )
            status = engine.advance(self._addresses, until_s, -1)

    def _set_limits(self, step: int) -> None:
        tokens, seconds = self._parts.budget.limits(step, self._vectors)
        self._state.limit_tokens[:] = tokens
        self._state.limit_s[:] = seconds

    def _finish_ended(self) -> None:
        """Tell each dispatcher which of its requests have ended."""
        finished = self._state.clock["finished"]
        dispatchers = self._parts.dispatchers
        count = len(dispatchers)
        for request in self._state.ended[: finished.item(0)].tolist():
            dispatchers[request % count].finish(request)
        finished[0] = 0

    def _records(self, decision_ns: np.ndarray, wall_s: float) -> Records:
        state = self._state
        rows = state.requests
        requests = np.zeros(len(rows), REQUEST_RECORD)
        for field in ("arrival_s", "first_token_s", "finish_s", "rank", "dispatcher"):
            requests[field] = rows[field]
        for field in ("preemptions", "outcome"):
            requests[field] = rows[field]
        is_dispatched = rows["rank"] >= 0
        requests["dispatch_s"] = np.where(is_dispatched, rows["arrival_s"], np.nan)
        requests["prompt_tokens"] = rows["prompt"]
        requests["output_tokens"] = rows["generated"]
        requests["cached_tokens"] = rows["cached"]
        return Records(
            requests=requests,
            steps=state.steps[: state.clock[0]["steps"]].copy(),
            late_gaps_s=state.gaps[: state.clock[0]["gaps"]].copy(),
            decision_ns=decision_ns,
            wall_s=wall_s,
            ranks=self._parts.ranks,
            kind=self._parts.kind,
        )
