"""vLLM's data-parallel client with dpbal's choice of the engine in place of its own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vllm.v1.engine.core_client import DPLBAsyncMPClient
from vllm.v1.pool.late_interaction import get_late_interaction_engine_index

from dpbal.backends.vllm.acknowledgement import attach
from dpbal.backends.vllm.front_end import FrontEnd
from dpbal.backends.vllm.prefixes import Prompt

if TYPE_CHECKING:
    from vllm.v1.engine import EngineCoreOutputs, EngineCoreRequest

FrontEndFactory = Callable[[int, int, int], FrontEnd]
"""Makes the front end of a process from the number of ranks, its own number, and their number."""


def balanced_client(make_front_end: FrontEndFactory) -> type[DPLBAsyncMPClient]:
    """A client class for one process; it leaves aborts, waves, pinning and counters to vLLM."""

    class BalancedClient(DPLBAsyncMPClient):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            cache = self.vllm_config.cache_config
            self.block_tokens = cache.block_size if cache.enable_prefix_caching else None
            try:
                self.front_end = make_front_end(
                    len(self.core_engines), self.client_index, self.client_count
                )
            except BaseException:
                super().shutdown()  # the engines have been started
                raise

        def get_core_engine_for_request(self, request: EngineCoreRequest) -> bytes:
            if request.request_id not in self.reqs_in_flight:  # else a session that has its engine
                pinned_rank = request.data_parallel_rank
                if pinned_rank is None:
                    pinned_rank = get_late_interaction_engine_index(
                        request.pooling_params, len(self.core_engines)
                    )
                placement, dispatched = self.front_end.dispatch(
                    request.request_id,
                    Prompt.of(request, self.block_tokens),
                    request.sampling_params.max_tokens if request.sampling_params else None,
                    pinned_rank,
                    request.session_id,
                )
                request.data_parallel_rank = placement.rank
                request.trace_headers = attach(request.trace_headers, dispatched)
            return super().get_core_engine_for_request(request)

        async def add_request_async(self, request: EngineCoreRequest) -> None:
            is_new = request.request_id not in self.reqs_in_flight
            try:
                await super().add_request_async(request)
            except BaseException:  # cancelled, or it could not be sent
                if is_new:
                    self.front_end.finish(request.request_id)
                raise

        async def reset_prefix_cache_async(
            self, reset_running_requests: bool = False, reset_connector: bool = False
        ) -> bool:
            async def reset(rank: int, engine: bytes) -> bool:
                is_empty: bool = await self._call_utility_async(
                    "reset_prefix_cache", reset_running_requests, reset_connector, engine=engine
                )
                if is_empty:  # at once, whatever comes of the other ranks
                    self.front_end.cache_reset(rank)
                return is_empty

            return all(await asyncio.gather(*map(reset, itertools.count(), self.core_engines)))

        @staticmethod
        async def process_engine_outputs(  # type: ignore[override]
            self: BalancedClient, outputs: EngineCoreOutputs
        ) -> None:
            self.front_end.take_in_events()
            for request_id in outputs.finished_requests or ():
                self.front_end.finish(request_id)
            await DPLBAsyncMPClient.process_engine_outputs(self, outputs)

        def shutdown(self, timeout: float | None = None) -> None:
            self.front_end.close()
            super().shutdown(timeout)

    return BalancedClient
