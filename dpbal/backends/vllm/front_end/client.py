"""vLLM's data-parallel client with dpbal's choice of the engine in place of its own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from vllm.utils.async_utils import in_loop
from vllm.v1.engine.core_client import DPLBAsyncMPClient
from vllm.v1.pool.late_interaction import get_late_interaction_engine_index

from dpbal.backends.vllm.acknowledgement import attach
from dpbal.backends.vllm.front_end.front_end import FrontEnd
from dpbal.backends.vllm.front_end.prefixes import Prompt
from dpbal.backends.vllm.metrics.counts import Ending
from dpbal.backends.vllm.metrics.endings import endings

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.engine import EngineCoreOutputs, EngineCoreRequest
    from vllm.v1.executor import Executor

    from dpbal.backends.vllm.metrics.exporter import Exporter
    from dpbal.backends.vllm.settings import Settings

FrontEndFactory = Callable[[int, int, int], FrontEnd]
"""Makes the front end of a process from the number of ranks, its own number, and their number."""


def balanced_client(
    make_front_end: FrontEndFactory, settings: Settings | None = None
) -> type[DPLBAsyncMPClient]:
    """A client class for one process; it leaves aborts, waves, pinning and counters to vLLM.

    Args:
        make_front_end: Makes the process's front end.
        settings: What its metrics are to say of the server; None for no metrics.
    """

    class BalancedClient(DPLBAsyncMPClient):
        exporter: Exporter | None = None

        def __init__(
            self,
            vllm_config: VllmConfig,
            executor_class: type[Executor],
            log_stats: bool,
            *args: Any,
            **kwargs: Any,
        ) -> None:
            super().__init__(vllm_config, executor_class, log_stats, *args, **kwargs)
            cache = self.vllm_config.cache_config
            self.block_tokens = cache.block_size if cache.enable_prefix_caching else None
            try:
                self.front_end = make_front_end(
                    len(self.core_engines), self.client_index, self.client_count
                )
                self.front_end.names = self.engine_ranks_managed
                if settings is not None and log_stats:
                    from dpbal.backends.vllm.metrics.exporter import Exporter

                    engines = self.engine_ranks_managed
                    self.exporter = Exporter(self.front_end, settings, engines, self.client_index)
                    self.exporter.start()
            except BaseException:
                super().shutdown()  # the engines have been started
                raise

        def get_core_engine_for_request(self, request: EngineCoreRequest) -> bytes:
            # else the reports may not be there any more
            self.ensure_alive()  # type: ignore[no-untyped-call]
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
            if self.exporter is not None:
                self.exporter.start()
            try:
                await super().add_request_async(request)
            except BaseException:  # cancelled, or it could not be sent
                if is_new:
                    self.front_end.finish(request.request_id, Ending.not_sent)
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
            for request_id, ending in endings(outputs):
                self.front_end.finish(request_id, ending)
            await DPLBAsyncMPClient.process_engine_outputs(self, outputs)

        def shutdown(self, timeout: float | None = None) -> None:
            try:
                if self.exporter is not None:
                    self.exporter.close()
            finally:  # requests may come and end meanwhile, in the loop
                super().shutdown(timeout)
            task = self.resources.output_queue_task
            loop = None if task is None else task.get_loop()
            if loop is None or not loop.is_running() or in_loop(loop):
                self.front_end.close()
            else:
                with suppress(RuntimeError):  # the loop has ended since, and the process ends
                    loop.call_soon_threadsafe(self.front_end.close)

    return BalancedClient
