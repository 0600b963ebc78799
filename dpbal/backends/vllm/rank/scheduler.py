"""vLLM's schedulers, which also say what they hold, and keep to the group's budget."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vllm.distributed.kv_events import KVEventBatch, NullEventPublisher
from vllm.logger import init_logger
from vllm.v1.core.kv_cache_utils import resolve_dcp_kv_block_size
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.metrics.stats import PrefixCacheStats

from dpbal.backends.vllm.acknowledgement import acknowledge, detach
from dpbal.backends.vllm.emulated import is_emulated_by
from dpbal.backends.vllm.hosts import rank_in_group
from dpbal.backends.vllm.metrics.telemetry import RankTelemetry, Telemetry
from dpbal.backends.vllm.rank.telling import Telling
from dpbal.backends.vllm.recorder import Recorder
from dpbal.backends.vllm.settings import (
    EVENTS,
    RECORDS,
    REPORTS,
    TELEMETRY,
    Settings,
    address,
)
from dpbal.core import column
from dpbal.errors import ConfigError
from dpbal.step_time import queued_s

if TYPE_CHECKING:
    from vllm.config import SchedulerConfig
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.request import Request

    from dpbal.transports.base import Publisher

LOG = init_logger(f"vllm.{__name__}")  # vLLM shows what is below its own name

TIME_S = column("time_s")
RUNNING = column("running")
WAITING = column("waiting")
HOLDING = column("holding_tokens")
WAITING_TOKENS = column("waiting_tokens")
KV_USED = column("kv_used_tokens")
KV_CAPACITY = column("kv_capacity_tokens")
PREFILL_TOKENS = column("prefill_tokens")
PREFILL_S = column("prefill_s")
DECODE_SEQS = column("decode_seqs")
DECODE_S = column("decode_s")
OLDEST_WAIT_S = column("oldest_wait_s")


class Reporting(Telling):
    """A scheduler that publishes a load report after every step, and acknowledges what it received.

    It changes nothing that vLLM does, but for what the group's budget asks.
    """

    _is_followed = False
    """Whether front ends hear of the prefix cache."""

    _says_what_is_new = False
    """Whether only dpbal hears of the prefix cache, and each block is to be told of once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = Settings.from_environment()
        rank = rank_in_group(self.parallel_config)
        backend = self.parallel_config.distributed_executor_backend
        folder = os.environ.get(RECORDS)
        dilation = settings.dilation if is_emulated_by(backend) else 1.0
        if settings.needs_events:
            self._start_events(rank)
        self._start_counting()
        self._start_pacing(self._pacing_of(settings), settings.step_time, dilation)
        self._start_telling(self._telemetry_of(settings))
        self._start_reporting(
            settings.transport.publisher(address(REPORTS), rank),
            Recorder(Path(folder), rank) if folder else None,
        )

    def _telemetry_of(self, settings: Settings) -> RankTelemetry | None:
        """Where this rank counts for an operator; None where nobody asked for metrics."""
        place = os.environ.get(TELEMETRY)
        if not place or not self.log_stats:
            return None
        parallel = self.parallel_config
        rank = parallel.data_parallel_index
        is_whole = parallel.data_parallel_size_local == parallel.data_parallel_size
        return RankTelemetry(
            Telemetry.attach(place),
            rank,
            settings.is_lockstep and is_whole and rank == 0,
            self.vllm_config.max_concurrent_batches,
        )

    def _start_reporting(self, publisher: Publisher, recorder: Recorder | None) -> None:
        self._publisher = publisher
        self._recorder = recorder
        manager = self.kv_cache_manager
        if recorder is not None and not self.log_stats:  # else they are taken for vLLM's own log
            manager.log_stats, manager.prefix_cache_stats = True, PrefixCacheStats()
        self._integers = publisher.report.view("int64").data
        self._floats = cast("memoryview[float]", publisher.report.view("float64").data)
        self._publish()

    def _start_events(self, rank: int) -> None:
        from dpbal.backends.vllm.rank.kv_events import RankPublisher

        own, groups = self.kv_event_publisher, self.kv_cache_config.kv_cache_groups
        dcp = self.parallel_config.decode_context_parallel_size
        block_tokens = self.cache_config.block_size  # which front ends hash by
        followed = resolve_dcp_kv_block_size(groups[0].kv_cache_spec, dcp) if groups else None
        if rank == 0 and followed != block_tokens:
            LOG.warning(
                "dpbal: indexer kv_events finds nothing, since the first group of layers has "
                "blocks of %s tokens and another has %d; type indexer=own_record",
                followed,
                block_tokens,
            )
        self._is_followed = True
        self._says_what_is_new = isinstance(own, NullEventPublisher)
        self.kv_event_publisher = RankPublisher(
            rank, address(EVENTS), block_tokens, self.kv_cache_config.num_blocks, own
        )

    def add_request(self, request: Request) -> None:
        """Take a request, and acknowledge its dispatch."""
        request.trace_headers, dispatched = detach(request.trace_headers)
        if self._says_what_is_new:
            request.kv_cache_report_mode = "incremental"
        super().add_request(request)
        if dispatched is not None:
            if self.kv_cache_manager.prefix_cache_lookup_enabled(request):
                self._tally.expect(request.request_id, dispatched.cached_tokens)
            publisher = self._publisher
            acknowledge(dispatched, publisher.received_epoch, publisher.received_sequence)
        if self.pause_state is not PauseState.UNPAUSED:  # no step may come to say so
            self._publish()

    def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        """Clear the prefix cache, and say so at once where a next step may be long in coming."""
        is_empty: bool = super().reset_prefix_cache(reset_running_requests, reset_connector)
        if self._is_followed:
            events: list[Any] = self.kv_cache_manager.take_events()
            self.kv_event_publisher.publish(KVEventBatch(ts=time.time(), events=events))
        return is_empty

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> Any:
        """Take in what a step gave, and report."""
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        self._publish()
        was_alone = self._was_alone()
        if self._recorder is not None:
            self._recorder.step(
                scheduler_output,
                model_runner_output,
                self._publisher.report,
                self._preempted,
                was_alone,
                # a step that is scheduled ahead may look up before one without a token has ended
                self._take_lookups() if scheduler_output.total_num_scheduled_tokens else (0, 0),
            )
        self._preempted = 0
        return outputs

    def meet(self, step: int) -> None:
        """All ranks of the group end this step, whether or not they had anything to do."""
        self._publisher.step(step)

    def rest(self) -> None:
        """No rank of the group has anything left to do."""
        super().rest()
        self._publisher.rest()

    def _take_lookups(self) -> tuple[int, int]:
        """Tokens that requests looked up in vLLM's prefix cache since the last time, and found.

        The second admission of a request is not among them, as in vLLM's metrics.
        """
        stats = self.kv_cache_manager.make_prefix_cache_stats()
        return (0, 0) if stats is None else (stats.queries, stats.hits)

    def shutdown(self) -> None:
        """Serve no more."""
        self._publisher.close()
        if self._recorder is not None:
            self._recorder.close()
        super().shutdown()

    def _preempt_request(
        self, request: Request, timestamp: float, drop_stale_output: bool = False
    ) -> None:
        super()._preempt_request(request, timestamp, drop_stale_output)
        if self._recorder is not None:
            self._recorder.preempt(request.request_id)

    def _publish(self) -> None:
        tally, costs = self._tally, self._step_time
        running, waiting = self.get_request_counts()
        prefilling = self._count_prefilling()
        decodes, contexts = self._count_decodes(prefilling)
        left = tally.waiting_missing + prefilling.left
        squares = tally.waiting_squares + prefilling.squares
        integers, floats = self._integers, self._floats
        floats[TIME_S] = time.monotonic()
        integers[RUNNING] = running
        integers[WAITING] = waiting
        integers[HOLDING] = tally.holding_tokens
        integers[WAITING_TOKENS] = tally.waiting_tokens
        integers[KV_USED] = (self._kv_blocks - self._free_kv_blocks()) * self.block_size
        integers[KV_CAPACITY] = self._kv_blocks * self.block_size
        integers[PREFILL_TOKENS] = left
        floats[PREFILL_S] = queued_s(
            costs.prefill_s_per_token, costs.attention_s_per_pair, left, squares
        )
        integers[DECODE_SEQS] = decodes
        floats[DECODE_S] = costs.decode_s(decodes, contexts)
        floats[OLDEST_WAIT_S] = self._oldest_wait_s(prefilling.oldest_s)
        self._publisher.publish()

    def _oldest_wait_s(self, oldest_prefilling_s: float) -> float:
        """Emulated age of the oldest request without a token; 0 for none."""
        oldest_s = self._tally.oldest_arrival_s
        oldest_s = oldest_prefilling_s if oldest_s is None else min(oldest_s, oldest_prefilling_s)
        return max(0.0, time.time() - oldest_s) / self._dilation


class ReportingScheduler(Reporting, Scheduler):
    """vLLM's scheduler, reporting."""


class ReportingAsyncScheduler(Reporting, AsyncScheduler):
    """vLLM's scheduler that runs a step ahead, reporting."""


def reporting(choose: Callable[[SchedulerConfig], type]) -> Callable[[SchedulerConfig], type]:
    """Make a config's choice of a scheduler class one that reports.

    Raises:
        ConfigError: For a scheduler of someone else's, which does not report.
    """

    @wraps(choose)
    def choose_reporting(self: SchedulerConfig) -> type:
        chosen = choose(self)
        if issubclass(chosen, Reporting):
            return chosen
        known = {Scheduler: ReportingScheduler, AsyncScheduler: ReportingAsyncScheduler}
        if chosen not in known:
            raise ConfigError(
                f"--scheduler-cls {chosen.__module__}.{chosen.__qualname__} publishes no load "
                f"reports; derive it from {Reporting.__module__}.{Reporting.__qualname__} as well"
            )
        return known[chosen]

    return choose_reporting
