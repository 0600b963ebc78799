"""How the front ends of a server come to know which prefixes its ranks hold."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from dpbal.backends.vllm.settings import DISPATCHES, EVENTS, REPORTS, Settings, address
from dpbal.core import Request
from dpbal.errors import ConfigError
from dpbal.indexers import CACHE_EVENT, Indexer, KvEvents, SharedRecord

if TYPE_CHECKING:
    from vllm.config import VllmConfig


PATIENCE_S = 2.0
"""Longest wait for a first report, of engines that have started."""

SOME_BLOCKS = 1000
"""Of a prompt that an index has to grow for."""


class Shared(Protocol):
    """What the processes of a server share, held by the one that starts the engines."""

    address: str

    def close(self) -> None:
        """Remove it."""


def refuse(vllm_config: VllmConfig, settings: Settings) -> None:
    """Refuse an index that this server's front ends cannot keep.

    Raises:
        ConfigError: With the way out.
    """
    settings.indexer  # noqa: B018 - raises for one of the simulator's
    if not settings.needs_events:
        return
    if not vllm_config.cache_config.enable_prefix_caching:
        raise ConfigError(
            "indexer 'kv_events' follows the ranks' prefix caches, and they have none; "
            "leave out --no-enable-prefix-caching (backend.prefix_cache=true)"
        )
    shards = vllm_config.parallel_config.decode_context_parallel_size
    if shards > 1:
        raise ConfigError(
            f"indexer 'kv_events' cannot follow blocks that {shards} GPUs share; "
            "leave out --decode-context-parallel-size, or type indexer=own_record"
        )


def share(vllm_config: VllmConfig, settings: Settings) -> dict[str, Shared]:
    """Make what ranks and front ends need for the index, and have ranks collect their events.

    Args:
        vllm_config: Of the engines that are about to be started.
        settings: What the server does.

    Returns:
        By the name of the environment variable that hands on its address.
    """
    shared: dict[str, Shared] = {}
    if settings.needs_events:
        import vllm.envs as envs
        from vllm.config import KVEventsConfig

        from dpbal.transports.sockets import Sockets

        given = vllm_config.kv_events_config
        if given is None or not given.enable_kv_cache_events:  # else vLLM's publisher goes on too
            vllm_config.kv_events_config = KVEventsConfig(
                enable_kv_cache_events=True, publisher="null"
            )
        shared[EVENTS] = Sockets.create(Path(envs.VLLM_RPC_BASE_PATH), "kv")
    processes = vllm_config.parallel_config._api_process_count
    if _is_told(settings.indexer, processes):
        shared[DISPATCHES] = SharedRecord.create(processes)
    return shared


def start(settings: Settings, ranks: int, number: int, processes: int) -> Indexer | None:
    """Start the index of a front-end process; None where nobody asks for one.

    Args:
        settings: What the server does.
        ranks: Of the group.
        number: Of the process.
        processes: How many there are.

    Raises:
        ConfigError: If the server did not hand on where the others are.
    """
    indexer = settings.indexer
    if indexer is None:
        return None
    indexer.start(ranks, _capacity_tokens(settings, ranks, settings.dispatchers(processes)))
    if _is_told(indexer, processes):
        cast(SharedRecord, indexer).connect(address(DISPATCHES), number)
    return indexer


def load(indexer: Indexer, ranks: int) -> None:
    """Load what an index is compiled from, so that no request has to wait for it.

    Args:
        indexer: Which; one like it is tried out.
        ranks: Of the group.
    """
    from dpbal.indexers.token_hashes import token_hashes

    blocks = SOME_BLOCKS
    hashes = token_hashes(range(blocks), 1)
    request = Request("", 0.0, blocks, block_hashes=hashes, block_tokens=1)
    spare = replace(indexer)
    spare.start(ranks, blocks)
    if isinstance(spare, KvEvents):
        events = np.zeros(blocks, CACHE_EVENT)
        events["hash"], events["stored"] = hashes, 1
        spare.apply(events)
    spare.dispatched(request, 0, 0.0)
    spare.match(request)
    spare.finished(request.id)
    spare.forget(0)


def _is_told(indexer: Indexer | None, processes: int) -> bool:
    """Whether front-end processes tell each other what they send where."""
    return processes > 1 and isinstance(indexer, SharedRecord)


def _capacity_tokens(settings: Settings, ranks: int, dispatchers: int) -> int:
    """KV cache of a rank, as the engines say that have been started."""
    from dpbal.core import LoadTable

    table = LoadTable(ranks, dispatchers)
    transport = settings.transport
    subscriber = transport.subscriber(address(REPORTS), table)
    subscriber.refresh()
    # a first report may be on its way, but for one that comes with the first step
    deadline_s = time.monotonic() + (0.0 if transport.is_collective else PATIENCE_S)
    while np.isinf(subscriber.ages_s()).all() and time.monotonic() < deadline_s:
        time.sleep(0.01)
        subscriber.refresh()
    subscriber.close()
    return int(table.reports["kv_capacity_tokens"].max()) or settings.kv_capacity_tokens
