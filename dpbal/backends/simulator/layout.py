"""The simulator's memory: one record type for each thing that the compiled core touches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dpbal.indexers.base import CACHE_EVENT as CACHE_EVENT

NONE = -1
"""No request, no block."""

REQUEST = np.dtype(
    [
        ("arrival_s", np.float64),
        ("first_token_s", np.float64),
        ("last_token_s", np.float64),
        ("finish_s", np.float64),
        ("sequence", np.int64),
        ("hash_start", np.int64),
        ("hash_blocks", np.int32),  # KV blocks of the prompt whose hash is known
        ("prompt", np.int32),
        ("output", np.int32),
        ("generated", np.int32),
        ("computed", np.int32),
        ("scheduled", np.int32),  # tokens in the step that runs
        ("blocks", np.int64),  # KV blocks held
        ("shared_blocks", np.int64),  # of those, the leading ones found in the cache
        ("newest_block", np.int64),  # head of the chain of the others
        ("next", np.int64),  # in the inbox or the waiting queue
        ("rank", np.int64),
        ("dispatcher", np.int32),
        ("expected", np.int32),  # tokens that its dispatcher believed cached; 0 once preempted
        ("cached", np.int32),
        ("preemptions", np.int32),
        ("outcome", np.int8),
        ("decodes", np.bool_),  # has emitted a token since it was admitted last
    ],
    align=True,
)

RANK = np.dtype(
    [
        ("step_start_s", np.float64),
        ("step_end_s", np.float64),  # infinity while no step runs
        ("local_s", np.float64),
        ("step_prefill_s", np.float64),  # of local_s
        ("step_decode_s", np.float64),
        ("restart_s", np.float64),  # when its process is to start anew, infinity for never
        ("random", np.uint64),
        ("holding_tokens", np.int64),
        ("waiting_tokens", np.int64),
        ("prefill_tokens", np.int64),
        ("prefill_squares", np.int64),  # sum of L^2 - c^2: twice the pairs still to come
        ("decode_seqs", np.int64),
        ("decode_kv_tokens", np.int64),
        ("free_blocks", np.int64),
        ("lost_events", np.int64),  # rows of the log that died with its last process
        ("epoch", np.int64),
        ("version", np.int64),
        ("steps_unpublished", np.int64),
        ("pending_first", np.int64),
        ("pending_count", np.int64),
        ("running", np.int64),
        ("waiting", np.int64),
        ("waiting_head", np.int64),
        ("waiting_tail", np.int64),
        ("inbox_head", np.int64),
        ("inbox_tail", np.int64),
        ("step_prefill", np.int32),
        ("step_decodes", np.int32),
        ("step_preemptions", np.int32),
        ("next_tokens", np.int32),
        ("capacity_bound", np.bool_),
    ],
    align=True,
)

CLOCK = np.dtype(
    [
        ("now_s", np.float64),
        ("steps", np.int64),  # rows of the step log in use
        ("gaps", np.int64),
        ("finished", np.int64),  # requests in the list of the ended
        ("events", np.int64),  # rows of the log of cached prefixes in use
        ("resets", np.int64),  # how many of the cache resets have been done
        ("wave_step", np.int64),  # lockstep: steps since the group was idle
        ("idle_steps", np.int64),  # steps in a row in which nothing was done
        ("group_end_s", np.float64),  # lockstep: end of the step that runs, infinity for none
        ("has_limits", np.bool_),  # lockstep: the budget has spoken for the next step
        ("held", np.bool_),  # whether requests wait for the end of the step to be placed
    ],
    align=True,
)

SPEC = np.dtype(
    [
        ("lockstep", np.bool_),
        ("asks_budget", np.bool_),  # limits change from step to step
        ("caching", np.bool_),
        ("shares_store", np.bool_),  # what any rank has computed need not be computed again
        ("max_batched_tokens", np.int64),
        ("max_seqs", np.int64),
        ("block_size", np.int64),
        ("blocks", np.int64),  # KV blocks of a rank
        ("hash_ratio", np.int64),  # KV blocks under one prefix hash
        ("events_room", np.int64),  # most events between two looks at the log's size; 0 for no log
        ("interval_steps", np.int64),
        ("publish_on_prefill", np.bool_),
        ("publish_on_idle", np.bool_),
        ("interval_s", np.float64),
        ("delay_s", np.float64),
        ("jitter_s", np.float64),
        ("loss", np.float64),
    ],
    align=True,
)

BLOCK = np.dtype(
    [
        ("key", np.int64),
        ("previous", np.int64),  # in the free queue
        ("next", np.int64),
        ("older", np.int64),  # in the chain of the request that allocated it
        ("references", np.int64),
    ],
    align=True,
)

UNHASHED = -1
"""Key of a block that is not full."""

UNSHARED = -2
"""Key of a full block that no other request can ask for."""


class State(NamedTuple):
    """All arrays of a simulation. R ranks, D dispatchers, n requests, B blocks a rank."""

    spec: np.ndarray  # SPEC[1]
    costs: np.ndarray  # COSTS[1], what everybody believes
    true_costs: np.ndarray  # COSTS[1], what steps take
    clock: np.ndarray  # CLOCK[1]
    requests: np.ndarray  # REQUEST[n]
    ranks: np.ndarray  # RANK[R]
    batch: np.ndarray  # int64[R, max_seqs], running requests in order of admission
    steps: np.ndarray  # STEP_RECORD[...], grows
    gaps: np.ndarray  # float64[...], grows
    ended: np.ndarray  # int64[...], requests ended since the last call, grows
    limit_tokens: np.ndarray  # int64[R]
    limit_s: np.ndarray  # float64[R]
    heard: np.ndarray  # int64[R, D], highest sequence received
    reports: np.ndarray  # REPORT[R], what dispatchers see
    seen: np.ndarray  # int64[R, D], acknowledgements that dispatchers see
    generation: np.ndarray  # int64[1]
    pending_s: np.ndarray  # float64[R, P], when reports under way arrive, grows
    pending: np.ndarray  # REPORT[R, P]
    pending_heard: np.ndarray  # int64[R, P, D]
    hashes: np.ndarray  # int64[m], dense prefix hashes
    blocks: np.ndarray  # BLOCK[R, B + 1], the last is the head of the free queue
    cached_keys: np.ndarray  # int64[R, M], open-addressed: key to block
    cached_blocks: np.ndarray  # int64[R, M]
    stored: np.ndarray  # bool[keys], computed by any rank; for a store that all ranks share
    prefixes: np.ndarray  # int64[R], hashes of the workload whose last KV block is in the cache
    events: np.ndarray  # CACHE_EVENT[...], with dense hashes, grows
    reset_s: np.ndarray  # float64[...], when all ranks' prefix caches are cleared, in order
