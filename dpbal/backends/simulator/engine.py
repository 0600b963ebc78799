"""The simulator's clock, compiled: runs the ranks' steps up to the next arrival."""

from __future__ import annotations

import numpy as np

from dpbal.backends.simulator.layout import NONE, State
from dpbal.backends.simulator.queues import read_inbox, submit
from dpbal.backends.simulator.reports import deliver, is_pending_full, publish
from dpbal.backends.simulator.restarts import next_reset_s, reset_caches, restart_due
from dpbal.backends.simulator.scheduler import complete, schedule
from dpbal.backends.simulator.views import open_views
from dpbal.jit import njit, njit_making_arrays
from dpbal.step_time import common_s as _common_s

ARRIVED = 0
"""All steps up to the asked time have run."""
GROW = 1
"""An array is full; enlarge it and call again."""
ASK_BUDGET = 2
"""Lockstep: the next step needs the budget's limits; set them and call again."""
STALLED = 3
"""Requests wait, but the budget has let no rank do anything for many steps."""
RELEASE = 4
"""Lockstep: a step has ended while requests are held; submit them and call again."""

STALL_STEPS = 100_000

common_s = njit(_common_s)


@njit_making_arrays
def advance(addresses: np.ndarray, until_s: float, request: int) -> int:
    """Submit ``request`` (or none) now, then run all steps that end by ``until_s``.

    Args:
        addresses: The simulation, from ``views.addresses``.
        until_s: Seconds on the simulated clock.
        request: Row of a request that has been dispatched, or ``NONE``.

    Returns:
        Why it came back: ``ARRIVED``, or something the caller has to do before calling again,
        with no request.
    """
    s = open_views(addresses)
    clock = s.clock[0]
    if request != NONE:
        submit(s, request)
        if not s.spec[0].lockstep:
            r = s.requests[request].rank
            if s.ranks[r].step_end_s == np.inf:
                _start_alone(s, r)
    status = _run_lockstep(s, until_s) if s.spec[0].lockstep else _run_independent(s, until_s)
    if status == ARRIVED and until_s < np.inf:
        clock.now_s = until_s
        _deliver_delayed(s, until_s)
    return status


@njit
def _deliver_delayed(s: State, until_s: float) -> None:
    """Let dispatchers see what has arrived, where reports take time."""
    if s.spec[0].delay_s > 0 or s.spec[0].jitter_s > 0 or s.spec[0].interval_s > 0:
        deliver(s, until_s)


@njit_making_arrays
def submit_held(addresses: np.ndarray, requests: np.ndarray) -> None:
    """Submit all requests that were held, in the order of their placements."""
    s = open_views(addresses)
    for k in range(requests.size):
        submit(s, requests[k])
    s.clock[0].held = False


@njit
def _must_grow(s: State) -> bool:
    clock = s.clock[0]
    if clock.steps + s.ranks.size > s.steps.size:
        return True
    if clock.gaps + s.batch.size > s.gaps.size:
        return True
    if clock.events + s.spec[0].events_room > s.events.size:
        return True
    return is_pending_full(s)


@njit
def _log_step(s: State, r: int, start_s: float, end_s: float) -> None:
    clock = s.clock[0]
    rank = s.ranks[r]
    row = s.steps[clock.steps]
    clock.steps += 1
    row.start_s = start_s
    row.end_s = end_s
    row.local_s = rank.local_s
    row.rank = r
    row.prefill_tokens = rank.step_prefill
    row.decode_seqs = rank.step_decodes
    row.next_tokens = rank.next_tokens
    row.running = rank.running
    row.waiting = rank.waiting
    row.preemptions = rank.step_preemptions
    row.kv_used_tokens = (s.spec[0].blocks - rank.free_blocks) * s.spec[0].block_size


@njit
def _run_independent(s: State, until_s: float) -> int:
    """Every rank steps alone; the step that ends first is next, ties by rank."""
    clock = s.clock[0]
    while True:
        nobody = s.ranks.size
        first = nobody
        at_s = next_reset_s(s)
        for r in range(s.ranks.size):
            own_s = s.ranks[r].step_end_s
            if own_s == np.inf:  # at rest
                own_s = s.ranks[r].restart_s
            if own_s < at_s:
                at_s = own_s
                first = r
        if at_s == np.inf or at_s > until_s:
            return ARRIVED
        if clock.idle_steps > STALL_STEPS:
            return STALLED
        if _must_grow(s):
            return GROW
        if first == nobody:
            reset_caches(s)
            continue
        rank = s.ranks[first]
        clock.now_s = at_s
        if rank.step_end_s == np.inf:
            restart_due(s, first)
            continue
        complete(s, first, rank.step_start_s, at_s)
        _log_step(s, first, rank.step_start_s, at_s)
        publish(s, first, False)
        restart_due(s, first)
        _start_alone(s, first)


@njit
def _start_alone(s: State, r: int) -> None:
    """Start a rank's next step, or let it rest if there is nothing to do."""
    rank = s.ranks[r]
    read_inbox(s, r)
    rank.step_end_s = np.inf
    if rank.running == 0 and rank.waiting == 0:
        return
    schedule(s, r)
    tokens = rank.step_prefill + rank.step_decodes
    clock = s.clock[0]
    clock.idle_steps = clock.idle_steps + 1 if tokens == 0 else 0
    mixed = rank.step_prefill > 0 and rank.step_decodes > 0
    costs = s.true_costs[0]
    rank.step_start_s = clock.now_s
    rank.step_end_s = rank.step_start_s + (
        rank.local_s
        + common_s(
            costs.common_fixed_s,
            costs.common_s_per_token,
            costs.mixed_penalty_s,
            costs.pad_to_largest,
            tokens,
            tokens,
            1,
            mixed,
        )
    )


@njit
def _run_lockstep(s: State, until_s: float) -> int:
    """All ranks step together; a step lasts as long as its slowest rank."""
    clock = s.clock[0]
    while True:
        if clock.group_end_s == np.inf:  # between two steps
            status = _start_together(s)
            if status != ARRIVED:
                return status
        is_resting = clock.group_end_s == np.inf
        at_s = clock.group_end_s
        if is_resting:
            for r in range(s.ranks.size):
                at_s = min(at_s, s.ranks[r].restart_s)
        reset_s = next_reset_s(s)
        next_s = min(at_s, reset_s)
        if next_s == np.inf or next_s > until_s:
            return ARRIVED
        if _must_grow(s):
            return GROW
        if reset_s == next_s:
            reset_caches(s)
            continue
        clock.now_s = at_s
        if not is_resting:
            start_s = s.ranks[0].step_start_s
            for r in range(s.ranks.size):
                complete(s, r, start_s, at_s)
                _log_step(s, r, start_s, at_s)
            for r in range(s.ranks.size):
                publish(s, r, False)
            clock.group_end_s = np.inf
        for r in range(s.ranks.size):
            restart_due(s, r)


@njit
def _start_together(s: State) -> int:
    """Start the group's next step, or let it rest if no rank has anything to do."""
    clock = s.clock[0]
    if clock.held:
        _deliver_delayed(s, clock.now_s)
        return RELEASE
    if not clock.has_limits:
        busy = False
        for r in range(s.ranks.size):
            read_inbox(s, r)
            busy = busy or s.ranks[r].running > 0 or s.ranks[r].waiting > 0
        if not busy:
            clock.wave_step = 0
            clock.idle_steps = 0
            return ARRIVED
        if s.spec[0].asks_budget:
            return ASK_BUDGET
    clock.has_limits = False

    tokens = 0
    largest = 0
    slowest_s = 0.0
    prefills = False
    decodes = False
    for r in range(s.ranks.size):
        rank = s.ranks[r]
        schedule(s, r)
        rank.step_start_s = clock.now_s
        rank_tokens = rank.step_prefill + rank.step_decodes
        tokens += rank_tokens
        largest = max(largest, rank_tokens)
        slowest_s = max(slowest_s, rank.local_s)
        prefills = prefills or rank.step_prefill > 0
        decodes = decodes or rank.step_decodes > 0
    clock.idle_steps = clock.idle_steps + 1 if tokens == 0 else 0
    if clock.idle_steps > STALL_STEPS:
        return STALLED
    costs = s.true_costs[0]
    clock.group_end_s = clock.now_s + (
        slowest_s
        + common_s(
            costs.common_fixed_s,
            costs.common_s_per_token,
            costs.mixed_penalty_s,
            costs.pad_to_largest,
            tokens,
            largest,
            s.ranks.size,
            prefills and decodes,
        )
    )
    clock.wave_step += 1
    return ARRIVED
