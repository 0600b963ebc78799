"""A rank's inbox and its waiting queue, compiled."""

from __future__ import annotations

import numpy as np

from dpbal.backends.simulator.layout import NONE, State
from dpbal.jit import njit

FINISHED = 1
FAILED = 2
ABORTED = 3


@njit
def submit(s: State, request: int) -> None:
    """Put a dispatched request into the inbox of its rank, which is read between steps."""
    q = s.requests[request]
    rank = s.ranks[q.rank]
    q.next = NONE
    if rank.inbox_head == NONE:
        rank.inbox_head = request
    else:
        s.requests[rank.inbox_tail].next = request
    rank.inbox_tail = request


@njit
def read_inbox(s: State, r: int) -> None:
    """Receive what has arrived: acknowledge it, refuse what can never fit, queue the rest."""
    rank = s.ranks[r]
    spec = s.spec[0]
    request = rank.inbox_head
    while request != NONE:
        q = s.requests[request]
        following = q.next
        s.heard[r, q.dispatcher] = q.sequence
        if (q.prompt + q.output - 1 + spec.block_size - 1) // spec.block_size > spec.blocks:
            end(s, request, FAILED, s.clock[0].now_s)
        else:
            rank.holding_tokens += q.prompt
            queue_last(s, r, request)
        request = following
    rank.inbox_head = NONE
    rank.inbox_tail = NONE


@njit
def end(s: State, request: int, outcome: int, now_s: float) -> None:
    """Note how a request ended, for the dispatcher that it came from."""
    q = s.requests[request]
    q.outcome = outcome
    q.finish_s = now_s
    clock = s.clock[0]
    s.ended[clock.finished] = request
    clock.finished += 1


@njit
def _count_waiting(s: State, r: int, request: int) -> None:
    q = s.requests[request]
    rank = s.ranks[r]
    tokens = np.int64(q.prompt + q.generated)
    expected = np.int64(q.expected)
    rank.waiting += 1
    rank.waiting_tokens += tokens
    rank.prefill_tokens += tokens - expected
    rank.prefill_squares += tokens * tokens - expected * expected


@njit
def queue_last(s: State, r: int, request: int) -> None:
    """Let a request wait behind all others."""
    _count_waiting(s, r, request)
    rank = s.ranks[r]
    s.requests[request].next = NONE
    if rank.waiting_head == NONE:
        rank.waiting_head = request
    else:
        s.requests[rank.waiting_tail].next = request
    rank.waiting_tail = request


@njit
def queue_first(s: State, r: int, request: int) -> None:
    """Let a request wait before all others."""
    _count_waiting(s, r, request)
    rank = s.ranks[r]
    s.requests[request].next = rank.waiting_head
    if rank.waiting_head == NONE:
        rank.waiting_tail = request
    rank.waiting_head = request
