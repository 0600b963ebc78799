"""Flow 2 in the simulator, compiled: a step's report, its way through the transport, its reader."""

from __future__ import annotations

import numpy as np

from dpbal.backends.simulator.layout import NONE, State
from dpbal.jit import njit
from dpbal.step_time import decode_s as _decode_s
from dpbal.step_time import queued_s as _queued_s

decode_s = njit(_decode_s)
queued_s = njit(_queued_s)


@njit
def _uniform(s: State, r: int) -> float:
    """Next number in [0, 1) of a rank's own stream (splitmix64)."""
    rank = s.ranks[r]
    rank.random += np.uint64(0x9E3779B97F4A7C15)
    z = rank.random
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) / 9007199254740992.0


@njit
def oldest_arrival_s(s: State, r: int) -> float:
    """Arrival of the oldest request without a first token, infinity for none."""
    oldest = np.inf
    rank = s.ranks[r]
    request = rank.waiting_head
    while request != NONE and s.requests[request].generated > 0:  # preempted after a first token
        request = s.requests[request].next
    if request != NONE:
        oldest = s.requests[request].arrival_s
    for k in range(rank.running - 1, -1, -1):  # prefills in progress were admitted last
        q = s.requests[s.batch[r, k]]
        if q.generated > 0:
            break
        oldest = min(oldest, q.arrival_s)
    return oldest


@njit
def fill_report(s: State, r: int, report: np.ndarray, at: int) -> None:
    """Write what a rank knows of itself into ``report[at]``."""
    rank = s.ranks[r]
    spec = s.spec[0]
    costs = s.costs[0]
    now_s = s.clock[0].now_s
    record = report[at]
    record.epoch = rank.epoch
    record.version = rank.version
    record.time_s = now_s
    record.running = rank.running
    record.waiting = rank.waiting
    record.holding_tokens = rank.holding_tokens
    record.waiting_tokens = rank.waiting_tokens
    record.kv_used_tokens = (spec.blocks - rank.free_blocks) * spec.block_size
    record.kv_capacity_tokens = spec.blocks * spec.block_size
    record.prefill_tokens = rank.prefill_tokens
    record.prefill_s = queued_s(
        costs.prefill_s_per_token,
        costs.attention_s_per_pair,
        rank.prefill_tokens,
        rank.prefill_squares,
    )
    record.decode_seqs = rank.decode_seqs
    record.decode_s = decode_s(
        costs.decode_s_per_seq, costs.kv_s_per_token, rank.decode_seqs, rank.decode_kv_tokens
    )
    record.oldest_wait_s = max(0.0, now_s - oldest_arrival_s(s, r))


@njit
def publish(s: State, r: int, is_new: bool) -> None:
    """After a step: report it, if the transport's interval says so and the report is not lost.

    A process that is new always reports, and its report is never lost.
    """
    rank = s.ranks[r]
    spec = s.spec[0]
    rank.steps_unpublished += 1
    is_due = rank.steps_unpublished >= spec.interval_steps
    is_resting = rank.running + rank.waiting == 0 and rank.step_prefill + rank.step_decodes > 0
    if not (
        is_new
        or is_due
        or (spec.publish_on_prefill and rank.step_prefill > 0)
        or (spec.publish_on_idle and is_resting)
    ):
        return
    rank.steps_unpublished = 0
    rank.version += 1
    if spec.loss > 0 and not is_new and _uniform(s, r) < spec.loss:
        return
    if spec.delay_s == 0 and spec.jitter_s == 0 and spec.interval_s == 0:
        fill_report(s, r, s.reports, r)
        for d in range(s.heard.shape[1]):
            s.seen[r, d] = s.heard[r, d]
        s.generation[0] += 1
        return
    _deliver_rank(s, r, s.clock[0].now_s)
    slots = s.pending_s.shape[1]
    arrival_s = s.clock[0].now_s + spec.delay_s
    if spec.jitter_s > 0:
        arrival_s += spec.jitter_s * _uniform(s, r)
    if rank.pending_count > 0:  # one connection keeps the order
        last = (rank.pending_first + rank.pending_count - 1) % slots
        arrival_s = max(arrival_s, s.pending_s[r, last])
    slot = (rank.pending_first + rank.pending_count) % slots
    s.pending_s[r, slot] = arrival_s
    fill_report(s, r, s.pending[r], slot)
    for d in range(s.heard.shape[1]):
        s.pending_heard[r, slot, d] = s.heard[r, d]
    rank.pending_count += 1


@njit
def is_pending_full(s: State) -> bool:
    """Whether a rank could not put another report under way."""
    slots = s.pending_s.shape[1]
    fullest = 0
    for r in range(s.ranks.size):
        fullest = max(fullest, s.ranks[r].pending_count)
    return bool(fullest >= slots)


@njit
def deliver(s: State, until_s: float) -> None:
    """Let dispatchers see the reports that have arrived, as of the last refresh."""
    for r in range(s.ranks.size):
        _deliver_rank(s, r, until_s)


@njit
def _deliver_rank(s: State, r: int, until_s: float) -> None:
    interval_s = s.spec[0].interval_s
    if interval_s > 0:
        until_s = np.floor(until_s / interval_s * (1 + 1e-15)) * interval_s
    slots = s.pending_s.shape[1]
    rank = s.ranks[r]
    newest = NONE
    while rank.pending_count > 0 and s.pending_s[r, rank.pending_first] <= until_s:
        newest = rank.pending_first
        rank.pending_first = (rank.pending_first + 1) % slots
        rank.pending_count -= 1
    if newest != NONE:
        s.reports[r] = s.pending[r, newest]
        for d in range(s.heard.shape[1]):
            s.seen[r, d] = s.pending_heard[r, newest, d]
        s.generation[0] += 1
