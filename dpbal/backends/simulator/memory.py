"""Makes the simulator's arrays from a configuration, and makes them larger when they are full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpbal.backends.base import STEP_RECORD, Parts
from dpbal.backends.simulator.layout import (
    BLOCK,
    CACHE_EVENT,
    CLOCK,
    NONE,
    RANK,
    REQUEST,
    SPEC,
    UNHASHED,
    State,
)
from dpbal.budgets.base import UNLIMITED
from dpbal.core import REPORT, LoadTable
from dpbal.errors import ConfigError
from dpbal.modes import GroupKind
from dpbal.transports.base import Timing
from dpbal.workloads.base import Requests


@dataclass(frozen=True)
class Engine:
    """What one rank's engine has, in vLLM's terms.

    Attributes:
        max_num_batched_tokens: Most tokens in a step.
        max_num_seqs: Most requests in the batch.
        block_size: Tokens in a KV block.
        kv_capacity_tokens: KV cache of a rank.
        prefix_cache: Whether prompts with known hashes share KV blocks.
        shared_prefix_store: Whether what one rank has computed none has to compute again.
        logs_events: Whether what comes into prefix caches and goes from them is logged.
        reset_s: When all prefix caches are cleared, in order.
    """

    max_num_batched_tokens: int
    max_num_seqs: int
    block_size: int
    kv_capacity_tokens: int
    prefix_cache: bool
    shared_prefix_store: bool
    logs_events: bool = False
    reset_s: Sequence[float] = ()


def allocate(engine: Engine, parts: Parts, requests: Requests, table: LoadTable) -> State:
    """The arrays of one simulation; reports and acknowledgements are the dispatchers' own."""
    ranks, dispatchers = table.received_sequence.shape
    timing = parts.transport.timing
    blocks = engine.kv_capacity_tokens // engine.block_size
    caching = engine.prefix_cache and requests.has_hashes
    entries = 1 << max(1, (2 * blocks - 1).bit_length()) if caching else 1
    slots = _slots(timing)
    hashes = _dense(requests.block_hashes) if caching else np.zeros(1, np.int64)
    spec = _spec(engine, parts, blocks, requests, caching)
    keys = int((hashes.max() + 1) * spec["hash_ratio"][0]) if spec["shares_store"][0] else 1
    state = State(
        spec=spec,
        costs=parts.step_time.costs(),
        true_costs=parts.step_time.costs(),
        clock=np.zeros(1, CLOCK),
        requests=_requests(requests, engine.block_size, caching),
        ranks=np.zeros(ranks, RANK),
        batch=np.zeros((ranks, engine.max_num_seqs), np.int64),
        steps=np.zeros(1 << 14, STEP_RECORD),
        gaps=np.zeros(max(1 << 10, 2 * ranks * engine.max_num_seqs)),
        ended=np.zeros(len(requests), np.int64),
        limit_tokens=np.full(ranks, UNLIMITED, np.int64),
        limit_s=np.full(ranks, np.inf),
        heard=np.zeros((ranks, dispatchers), np.int64),
        reports=table.reports,
        seen=table.received_sequence,
        generation=table.generation,
        pending_s=np.zeros((ranks, slots)),
        pending=np.zeros((ranks, slots), REPORT),
        pending_heard=np.zeros((ranks, slots, dispatchers), np.int64),
        hashes=hashes,
        blocks=_blocks(ranks, blocks) if caching else np.zeros((1, 1), BLOCK),
        cached_keys=np.full((ranks if caching else 1, entries), NONE, np.int64),
        cached_blocks=np.zeros((ranks if caching else 1, entries), np.int64),
        stored=np.zeros(keys, np.bool_),
        prefixes=np.zeros(ranks, np.int64),
        events=np.zeros(1 + 2 * int(spec["events_room"][0]), CACHE_EVENT),
        reset_s=np.array(engine.reset_s, np.float64),
    )
    state.clock["group_end_s"] = np.inf
    state.ranks["step_end_s"] = np.inf
    state.ranks["restart_s"] = np.inf
    state.ranks["free_blocks"] = blocks
    for name in ("waiting_head", "waiting_tail", "inbox_head", "inbox_tail"):
        state.ranks[name] = NONE
    seeds = np.random.SeedSequence([parts.seed, 7]).generate_state(ranks, np.uint64)
    state.ranks["random"] = seeds
    _report_start(state, table, engine)
    return state


def grow(state: State) -> State:
    """The same simulation with twice the room in each array that is nearly full."""
    ranks = len(state.ranks)
    clock = state.clock[0]
    if clock["steps"] + ranks > len(state.steps):
        state = state._replace(steps=_doubled(state.steps))
    if clock["events"] + state.spec[0]["events_room"] > len(state.events):
        state = state._replace(events=_doubled(state.events))
    if clock["gaps"] + state.batch.size > len(state.gaps):
        state = state._replace(gaps=_doubled(state.gaps))
    slots = state.pending_s.shape[1]
    if (state.ranks["pending_count"] >= slots).any():
        order = (state.ranks["pending_first"][:, None] + np.arange(slots)) % slots
        rows = np.arange(ranks)[:, None]
        state.ranks["pending_first"] = 0
        state = state._replace(
            pending_s=_widened(state.pending_s[rows, order]),
            pending=_widened(state.pending[rows, order]),
            pending_heard=_widened(state.pending_heard[rows, order]),
        )
    return state


def _doubled(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array, np.zeros_like(array)])


def _widened(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array, np.zeros_like(array)], axis=1)


def _slots(timing: Timing) -> int:
    is_delayed = timing.delay_s > 0 or timing.jitter_s > 0 or timing.interval_s > 0
    return 64 if is_delayed else 1


def _spec(
    engine: Engine, parts: Parts, blocks: int, requests: Requests, caching: bool
) -> np.ndarray:
    spec = np.zeros(1, SPEC)
    lockstep = parts.kind is GroupKind.lockstep
    spec["lockstep"] = lockstep
    spec["asks_budget"] = lockstep and not parts.budget.is_static
    spec["caching"] = caching
    spec["shares_store"] = caching and engine.shared_prefix_store
    spec["max_batched_tokens"] = engine.max_num_batched_tokens
    spec["max_seqs"] = engine.max_num_seqs
    spec["block_size"] = engine.block_size
    spec["blocks"] = blocks
    spec["hash_ratio"] = 1
    if caching:
        ratio, rest = divmod(requests.hash_block_tokens, engine.block_size)
        if rest:
            raise ConfigError(
                f"backend.block_size={engine.block_size} does not divide the "
                f"{requests.hash_block_tokens} tokens of the workload's prefix blocks; "
                "choose one that does, or type backend.prefix_cache=false"
            )
        spec["hash_ratio"] = ratio
        if engine.logs_events:  # a step or a reset stores and evicts each block once at most
            spec["events_room"] = 2 * blocks * (2 * parts.ranks + 1)
    for name, value in parts.transport.timing._asdict().items():
        spec[name] = value
    return spec


def _requests(requests: Requests, block_size: int, caching: bool) -> np.ndarray:
    rows = np.zeros(len(requests), REQUEST)
    rows["arrival_s"] = requests.arrival_s
    rows["first_token_s"] = np.nan
    rows["last_token_s"] = np.nan
    rows["finish_s"] = np.nan
    rows["prompt"] = requests.prompt_tokens
    rows["output"] = requests.output_tokens
    rows["newest_block"] = NONE
    rows["next"] = NONE
    rows["rank"] = NONE
    if caching and requests.hash_offsets is not None:
        rows["hash_start"] = requests.hash_offsets[:-1]
        hashed_tokens = np.diff(requests.hash_offsets) * requests.hash_block_tokens
        rows["hash_blocks"] = np.minimum(requests.prompt_tokens, hashed_tokens) // block_size
    return rows


def _dense(hashes: np.ndarray) -> np.ndarray:
    """The hashes renumbered from 0, so that block keys cannot overflow."""
    _, dense = np.unique(hashes, return_inverse=True)
    return dense.astype(np.int64)


def _blocks(ranks: int, blocks: int) -> np.ndarray:
    """All blocks free and empty, in one circular queue whose head stands behind the last."""
    queue = np.zeros((ranks, blocks + 1), BLOCK)
    queue["key"] = UNHASHED
    queue["older"] = NONE
    order = np.arange(blocks + 1)
    queue["next"] = (order + 1) % (blocks + 1)
    queue["previous"] = (order - 1) % (blocks + 1)
    return queue


def _report_start(state: State, table: LoadTable, engine: Engine) -> None:
    """Every rank reports once when it starts, idle."""
    state.ranks["epoch"] = 1
    state.ranks["version"] = 1
    table.reports["epoch"] = 1
    table.reports["version"] = 1
    table.reports["kv_capacity_tokens"] = (
        engine.kv_capacity_tokens // engine.block_size * engine.block_size
    )
    table.received_epoch[:] = 1
    table.update_selectable()
