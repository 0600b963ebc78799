"""One run of the simulator: the arrays, and the loop over arrivals."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from dpbal.backends.base import REQUEST_RECORD, Parts, Records
from dpbal.backends.simulator.informants import Informants
from dpbal.budgets.base import UNLIMITED
from dpbal.core import VECTOR, Request
from dpbal.errors import ConfigError, DpbalError
from dpbal.modes import GroupKind
from dpbal.workloads.base import Requests

if TYPE_CHECKING:
    from dpbal.backends.simulator.simulator import Simulator

LOG = logging.getLogger(__name__)


class SimulationError(DpbalError, RuntimeError):
    """A combination that cannot go on, such as a budget that lets nobody work."""


class Run:
    """One run of the simulator.

    Args:
        config: The engines.
        requests: In order of arrival.
        parts: The combination.

    Attributes:
        state: The compiled core's memory.
        addresses: Where it is, for the compiled core.
    """

    def __init__(self, config: Simulator, requests: Requests, parts: Parts) -> None:
        from dpbal.backends.simulator import engine, memory, vectors, views
        from dpbal.jit import is_compiled

        tables = {id(dispatcher.table) for dispatcher in parts.dispatchers}
        if len(tables) != 1:
            raise ConfigError("all dispatchers of a simulated group must read the same load table")
        if config.hold and parts.kind is not GroupKind.lockstep:
            raise ConfigError(
                "backend.hold waits for the end of the group's step, and ranks of an independent "
                "group step alone; type backend.hold=false, or group.kind=lockstep"
            )
        for rank in config.restarts or {}:
            if not 0 <= rank < parts.ranks:
                raise ConfigError(
                    f"backend.restarts names rank {rank}; ranks are 0 to {parts.ranks - 1}"
                )
        table = parts.dispatchers[0].table
        self._config = config
        self._requests = requests
        self._parts = parts
        self._code = engine
        self._fill_vectors = vectors.fill_vectors
        self._is_compiled = is_compiled
        self._memory = memory
        self._addresses_of = views.addresses
        self._informants = Informants(parts.dispatchers, requests)
        capacity = config.kv_capacity_tokens or parts.step_time.kv_capacity_tokens
        rank_engine = memory.Engine(
            config.max_num_batched_tokens,
            config.max_num_seqs,
            config.block_size,
            capacity,
            config.prefix_cache,
            config.shared_prefix_store,
            self._informants.want_events,
            sorted(config.cache_resets or ()),
        )
        self.state = memory.allocate(rank_engine, parts, requests, table)
        for rank, at_s in (config.restarts or {}).items():
            self.state.ranks["restart_s"][rank] = at_s
        for name, factor in (config.true_cost or {}).items():
            self.state.true_costs[name] *= factor
        self.addresses = views.addresses(self.state)
        self._informants.connect(self)
        self._held: list[tuple[int, Request]] = []
        self._dispatch_s = self.state.requests["arrival_s"].copy()
        self._decisions_ns: list[int] = []
        budget = parts.budget
        self._lag = config.vector_lag if budget.needs_vectors else 0
        self._vectors = np.zeros((1 + self._lag, parts.ranks), VECTOR)  # the newest versions
        budget.start(parts.ranks, parts.step_time, config.max_num_batched_tokens)
        if budget.is_static:
            self._set_limits(*budget.limits(0, self._vectors[0]))

    def run(self, progress: Callable[[int], None] | None) -> Records:
        """Run all requests; see ``Backend.run``."""
        state = self.state
        engine = self._code
        self._compile()
        dispatchers = self._parts.dispatchers
        count = len(dispatchers)
        owners = np.arange(len(self._requests)) % count
        state.requests["dispatcher"] = owners
        # one element of a memoryview costs half of what it costs in numpy
        rows_rank = state.requests["rank"].data
        rows_sequence = state.requests["sequence"].data
        rows_expected = state.requests["expected"].data
        ended = state.clock["finished"].data
        decided = self._decisions_ns.append
        dispatch = [d.dispatch for d in dispatchers]
        informs, inform = self._informants.want_events, self._informants.inform
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
            status = advance(self.addresses, at_s, previous)
            if status != arrived:
                self._go_on(status, at_s)
            if ended[0]:
                self._finish_ended()
            if self._config.hold:
                self._hold(number, request)
            else:
                if informs:
                    inform(owner, at_s)
                before_ns = now_ns()
                placement = dispatch[owner](request, at_s)
                decided(now_ns() - before_ns)
                previous = number
                rows_rank[previous] = placement.rank
                rows_sequence[previous] = placement.sequence
                rows_expected[previous] = placement.cached_tokens
                owner = (owner + 1) % count
            if number == 0:  # the first dispatch loads the policies' own compiled parts
                start_ns = now_ns()
            if progress is not None and number % 4096 == 0:
                progress(number)
        self._go_on(engine.advance(self.addresses, stop_s, previous), stop_s)
        self._finish_ended()
        wall_s = (now_ns() - start_ns) / 1e9
        return self._records(np.array(self._decisions_ns, np.int64), wall_s)

    def _hold(self, number: int, request: Request) -> None:
        """Keep a request that has just arrived; one that finds the group at rest goes at once."""
        self._held.append((number, request))
        self.state.clock["held"] = True
        if self.state.clock[0]["group_end_s"] == np.inf:
            self._release()

    def _release(self) -> None:
        """Place what was held, each dispatcher its own."""
        self._finish_ended()
        held, self._held = self._held, []
        rows, now_s = self.state.requests, float(self.state.clock[0]["now_s"])
        dispatchers = self._parts.dispatchers
        order: list[int] = []
        for k, dispatcher in enumerate(dispatchers):
            own = [pair for pair in held if pair[0] % len(dispatchers) == k]
            if not own:
                continue
            numbers = {request.id: number for number, request in own}
            self._informants.inform(k, now_s)
            before_ns = time.perf_counter_ns()
            placed = dispatcher.dispatch_together([request for _, request in own], now_s)
            took_ns = time.perf_counter_ns() - before_ns
            self._decisions_ns += [took_ns // len(own)] * len(own)
            for request, placement in placed:
                number = numbers[request.id]
                row = rows[number]
                row["rank"], row["sequence"] = placement.rank, placement.sequence
                row["expected"] = placement.cached_tokens
                self._dispatch_s[number] = now_s
                order.append(number)
        self._code.submit_held(self.addresses, np.array(order, np.int64))

    def _compile(self) -> None:
        """Compile, or load what was compiled before, outside the measured time."""
        if not self._is_compiled("engine.advance"):
            LOG.info("compiling the simulator; the next run loads it in a second")
        self._code.advance(self.addresses, 0.0, -1)
        self._fill_vectors(self.addresses, self._vectors[0])

    def _go_on(self, status: int, until_s: float) -> None:
        """Do what the core came back for, until it has reached ``until_s``."""
        engine = self._code
        while status != engine.ARRIVED:
            if status == engine.ASK_BUDGET:
                self._ask_budget(int(self.state.clock[0]["wave_step"]))
            elif status == engine.RELEASE:
                self._release()
            elif status == engine.GROW:
                self.state = self._memory.grow(self.state)
                self.addresses = self._addresses_of(self.state)
            else:
                ranks = self.state.ranks
                waiting = int(ranks["waiting"].sum() + ranks["running"].sum())
                raise SimulationError(
                    f"{type(self._parts.budget).__name__} has let no rank work for "
                    f"{engine.STALL_STEPS} steps while {waiting} requests wait"
                )
            status = engine.advance(self.addresses, until_s, -1)

    def _ask_budget(self, step: int) -> None:
        """Limits for a step from the vectors of ``vector_lag`` steps before it."""
        versions, budget = len(self._vectors), self._parts.budget
        newest = self._vectors[step % versions]
        self._fill_vectors(self.addresses, newest)
        if step < self._lag:  # nobody knows the others yet
            alone_s = [budget.alone_s(newest[r : r + 1]) for r in range(self._parts.ranks)]
            self._set_limits(UNLIMITED, alone_s)
        else:
            agreed = self._vectors[(step - self._lag) % versions]
            self._set_limits(*budget.limits(step, agreed))
        self.state.clock["has_limits"] = True

    def _set_limits(self, tokens: np.ndarray | int, seconds: np.ndarray | list[float]) -> None:
        self.state.limit_tokens[:] = tokens
        self.state.limit_s[:] = seconds

    def _finish_ended(self) -> None:
        """Tell each dispatcher which of its requests have ended."""
        finished = self.state.clock["finished"]
        dispatchers = self._parts.dispatchers
        count = len(dispatchers)
        for request in self.state.ended[: finished.item(0)].tolist():
            dispatchers[request % count].finish(request)
        finished[0] = 0

    def _records(self, decision_ns: np.ndarray, wall_s: float) -> Records:
        state = self.state
        rows = state.requests
        requests = np.zeros(len(rows), REQUEST_RECORD)
        for field in ("arrival_s", "first_token_s", "finish_s", "rank", "dispatcher"):
            requests[field] = rows[field]
        for field in ("preemptions", "outcome"):
            requests[field] = rows[field]
        is_dispatched = rows["rank"] >= 0
        requests["dispatcher"][~is_dispatched] = -1
        requests["dispatch_s"] = np.where(is_dispatched, self._dispatch_s, np.nan)
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
