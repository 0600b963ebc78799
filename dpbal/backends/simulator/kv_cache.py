"""The KV cache of a rank, compiled: blocks, prefix hashes, least recently used evicted first."""

from __future__ import annotations

from dpbal.backends.simulator.layout import NONE, UNHASHED, UNSHARED, State
from dpbal.jit import njit
from dpbal.open_addressing import find_slot, remove_slot


@njit
def is_cached(s: State, rank: int, key: int) -> bool:
    """Whether a rank holds the block under a key."""
    keys = s.cached_keys[rank]
    return bool(keys[find_slot(keys, key)] == key)


@njit
def _note(s: State, rank: int, key: int, stored: int) -> None:
    """Count and log that a block has come or gone, if it is the last under a prefix hash."""
    ratio = s.spec[0].hash_ratio
    if key % ratio != ratio - 1:
        return
    s.prefixes[rank] += 2 * stored - 1
    if s.spec[0].events_room > 0:
        clock = s.clock[0]
        event = s.events[clock.events]
        event.time_s = clock.now_s
        event.rank = rank
        event.hash = key // ratio
        event.stored = stored
        clock.events += 1


@njit
def drop_prefix(s: State, rank: int, block: int) -> None:
    """Let a block be found no more."""
    entry = s.blocks[rank, block]
    if entry.key >= 0:
        slot = find_slot(s.cached_keys[rank], entry.key)
        remove_slot(s.cached_keys[rank], s.cached_blocks[rank], 1, slot)
        _note(s, rank, entry.key, 0)
    entry.key = UNHASHED


@njit
def _prefix_key(s: State, request: int, block: int) -> int:
    ratio = s.spec[0].hash_ratio
    prefix = s.hashes[s.requests[request].hash_start + block // ratio]
    return int(prefix * ratio + block % ratio)


@njit
def _unlink(s: State, rank: int, block: int) -> None:
    """Take a block out of the free queue."""
    blocks = s.blocks[rank]
    blocks[blocks[block].previous].next = blocks[block].next
    blocks[blocks[block].next].previous = blocks[block].previous
    s.ranks[rank].free_blocks -= 1


@njit
def _link_after(s: State, rank: int, block: int, after: int) -> None:
    blocks = s.blocks[rank]
    following = blocks[after].next
    blocks[block].previous = after
    blocks[block].next = following
    blocks[after].next = block
    blocks[following].previous = block
    s.ranks[rank].free_blocks += 1


@njit
def _unreference(s: State, rank: int, block: int) -> None:
    """Give up one reference; an unused block is evicted first if unhashed, else last."""
    entry = s.blocks[rank, block]
    entry.references -= 1
    if entry.references == 0:
        head = s.spec[0].blocks
        after = head if entry.key == UNHASHED else s.blocks[rank, head].previous
        _link_after(s, rank, block, after)


@njit
def find_prefix(s: State, rank: int, request: int) -> tuple[int, int, int]:
    """Leading blocks of the request that need not be computed: found, unheld and known ones.

    Found are those in the cache, unheld those of them that no request holds. Known are more than
    found only where all ranks share a store. At least one token is always left to compute, for its
    logits.
    """
    if not s.spec[0].caching:
        return 0, 0, 0
    q = s.requests[request]
    limit = min(q.hash_blocks, (q.prompt + q.generated - 1) // s.spec[0].block_size)
    keys = s.cached_keys[rank]
    hits = 0
    unused = 0
    while hits < limit:
        key = _prefix_key(s, request, hits)
        slot = find_slot(keys, key)
        if keys[slot] != key:
            break
        if s.blocks[rank, s.cached_blocks[rank, slot]].references == 0:
            unused += 1
        hits += 1
    known = hits
    while s.spec[0].shares_store and known < limit and s.stored[_prefix_key(s, request, known)]:
        known += 1
    return hits, unused, known


@njit
def share_prefix(s: State, rank: int, request: int, hits: int) -> None:
    """Hold the first ``hits`` blocks, which ``find_prefix`` has just found."""
    q = s.requests[request]
    keys = s.cached_keys[rank]
    for index in range(hits):
        block = s.cached_blocks[rank, find_slot(keys, _prefix_key(s, request, index))]
        if s.blocks[rank, block].references == 0:
            _unlink(s, rank, block)
        s.blocks[rank, block].references += 1
    q.shared_blocks = hits
    q.blocks = hits


@njit
def blocks_short(s: State, rank: int, request: int, tokens: int) -> int:
    """How many blocks a request lacks, beside those it holds, for ``tokens`` in all."""
    size = s.spec[0].block_size
    return int((tokens + size - 1) // size - s.requests[request].blocks)


@njit
def count_blocks(s: State, rank: int, request: int, tokens: int) -> None:
    """Without a prefix cache: give a request blocks for ``tokens`` in all, whichever they are."""
    short = blocks_short(s, rank, request, tokens)
    s.ranks[rank].free_blocks -= short
    s.requests[request].blocks += short


@njit
def allocate(s: State, rank: int, request: int, tokens: int) -> None:
    """Give a request blocks for ``tokens`` in all, and hash those that become full.

    Callers ask first whether any is new or becomes full, as the call itself takes long: it hands
    over all of ``State``.

    The caller has made sure that enough are free. Full blocks can be found by others at once, as
    in vLLM, where they are computed in the same step.
    """
    short = blocks_short(s, rank, request, tokens)
    q = s.requests[request]
    full = tokens // s.spec[0].block_size
    if q.newest_block != NONE and q.blocks <= full:
        _hash(s, rank, request, q.newest_block, q.blocks - 1)
    head = s.spec[0].blocks
    for _ in range(short):
        block = s.blocks[rank, head].next
        _unlink(s, rank, block)
        drop_prefix(s, rank, block)
        entry = s.blocks[rank, block]
        entry.references = 1
        entry.older = q.newest_block
        q.newest_block = block
        q.blocks += 1
        if q.blocks <= full:
            _hash(s, rank, request, block, q.blocks - 1)


@njit
def _hash(s: State, rank: int, request: int, block: int, index: int) -> None:
    """A block has become full: make it known under the prefix it ends, if that has a hash."""
    entry = s.blocks[rank, block]
    if entry.key != UNHASHED:
        return
    entry.key = UNSHARED
    if index < s.requests[request].hash_blocks:
        key = _prefix_key(s, request, index)
        slot = find_slot(s.cached_keys[rank], key)
        if s.cached_keys[rank, slot] != key:  # else another request computed it first
            s.cached_keys[rank, slot] = key
            s.cached_blocks[rank, slot] = block
            entry.key = key
            _note(s, rank, key, 1)


@njit
def store(s: State, request: int, before: int) -> None:
    """Put what a request has computed since ``before`` tokens into the store of all ranks."""
    if not s.spec[0].shares_store:
        return
    q = s.requests[request]
    size = s.spec[0].block_size
    for block in range(before // size, min(q.hash_blocks, q.computed // size)):
        s.stored[_prefix_key(s, request, block)] = True


@njit
def release(s: State, rank: int, request: int) -> None:
    """Give up all blocks of a request, the last first, so that a prefix outlives its tail."""
    q = s.requests[request]
    if not s.spec[0].caching:
        s.ranks[rank].free_blocks += q.blocks
        q.blocks = 0
        return
    block = q.newest_block
    while block != NONE:
        older = s.blocks[rank, block].older
        _unreference(s, rank, block)
        block = older
    for index in range(q.shared_blocks - 1, -1, -1):
        slot = find_slot(s.cached_keys[rank], _prefix_key(s, request, index))
        _unreference(s, rank, s.cached_blocks[rank, slot])
    q.newest_block = NONE
    q.shared_blocks = 0
    q.blocks = 0
