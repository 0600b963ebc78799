"""vLLM's schedulers, which also say what they hold after each step, without walking all of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from dpbal.backends.vllm.acknowledgement import acknowledge, detach
from dpbal.backends.vllm.launch import is_emulated_by
from dpbal.backends.vllm.recorder import Recorder
from dpbal.backends.vllm.settings import RECORDS, REPORTS, Settings, address
from dpbal.backends.vllm.tally import Tally
from dpbal.core import column
from dpbal.errors import ConfigError

if TYPE_CHECKING:
    from vllm.config import SchedulerConfig
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.outputs import ModelRunnerOutput

    from dpbal.step_time import StepTime
    from dpbal.transports.base import Publisher

RECOUNT_STEPS = 4096
"""A full count over all requests every so many steps mends what the running count has missed."""


class Reporting(Scheduler):
    """A scheduler that publishes a load report after every step, and acknowledges what it received.

    It changes nothing that vLLM does. What it holds is counted as it changes: requests that come,
    go, are preempted or admitted one by one, and the tokens of a step from the number of outputs
    that it gave. Only the requests that are being prefilled are looked at in each step.

    Attributes:
        recounted: Full counts that found something else than the running count.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = Settings.from_environment()
        rank = self.parallel_config.data_parallel_index
        backend = self.parallel_config.distributed_executor_backend
        folder = os.environ.get(RECORDS)
        self._start_reporting(
            settings.transport.publisher(address(REPORTS), rank),
            settings.step_time,
            settings.dilation if is_emulated_by(backend) else 1.0,
            Recorder(Path(folder), rank) if folder else None,
        )

    def _start_reporting(
        self, publisher: Publisher, step_time: StepTime, dilation: float, recorder: Recorder | None
    ) -> None:
        self.recounted = 0
        self._publisher = publisher
        self._step_time = step_time
        self._dilation = dilation
        self._recorder = recorder
        self._tally = Tally()
        self._late: set[Request] = set()  # preempted ones that a step under way gives tokens
        self._processed = 0
        self._preempted = 0
        self._always_counts_tokens = (
            self.num_sampled_tokens_per_step != 1  # pooling, diffusion
            or self.connector is not None  # whose failed loads end requests without a token
            or self.ec_connector is not None
        )
        pool = self.kv_cache_manager.block_pool
        self._kv_blocks = pool.num_gpu_blocks - 1  # without vLLM's null block
        self._integers = publisher.report.view("int64").data
        self._floats = cast("memoryview[float]", publisher.report.view("float64").data)
        self._publish()

    def add_request(self, request: Request) -> None:
        """Take a request, and acknowledge its dispatch."""
        request.trace_headers, dispatched = detach(request.trace_headers)
        if request.request_id not in self.requests:  # else it goes on with a session
            self._tally.add(request.request_id, request.num_tokens, request.arrival_time)
        super().add_request(request)
        if dispatched is not None:
            publisher = self._publisher
            acknowledge(dispatched, publisher.received_epoch, publisher.received_sequence)

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        """Schedule a step."""
        output = super().schedule(throttle_prefills)
        for new in output.scheduled_new_reqs:
            self._tally.admit(new.req_id)
        for request_id in output.scheduled_cached_reqs.resumed_req_ids:
            self._tally.admit(request_id)
        return output

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> Any:
        """Take in what a step gave, and report."""
        self._processed += 1
        counts_tokens = (
            self._always_counts_tokens
            or bool(scheduler_output.scheduled_spec_decode_tokens)
            or bool(self.grammar_compile_error_reqs or self.encoder_cache_mismatch_reqs)
        )
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        for given in outputs.values():
            if counts_tokens:
                self._tally.generate(sum(len(output.new_token_ids) for output in given.outputs))
            else:  # one each
                self._tally.generate(len(given.outputs))
        if self._late:
            self._take_late_tokens()
        if self._processed % RECOUNT_STEPS == 0:
            self._recount()
        self._publish()
        if self._recorder is not None:
            used = self._kv_used_tokens()
            counts = self.get_request_counts()
            self._recorder.step(
                scheduler_output, model_runner_output, *counts, self._preempted, used
            )
        self._preempted = 0
        return outputs

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
        self._preempted += 1
        if self._recorder is not None:
            self._recorder.preempt(request.request_id)
        if request.num_stale_output_tokens:
            self._late.add(request)
        self._wait_again(request)

    def _update_request_as_session(self, session: Request, update: Any) -> None:
        before_tokens = session.num_tokens
        super()._update_request_as_session(session, update)
        self._tally.generate(session.num_tokens - before_tokens)
        self._wait_again(session)

    def _free_request(self, request: Request, delay_free_blocks: bool = False) -> Any:
        self._tally.remove(request.request_id, request.num_tokens)
        return super()._free_request(request, delay_free_blocks)

    def _handle_stopped_request(self, request: Request) -> bool:
        has_finished: bool = super()._handle_stopped_request(request)
        if not has_finished:  # a session that waits for the rest of its prompt
            self._wait_again(request)
        return has_finished

    def _wait_again(self, request: Request) -> None:
        since_s = None if request.num_output_tokens else request.arrival_time
        self._tally.wait(request.request_id, request.num_tokens, since_s)

    def _take_late_tokens(self) -> None:
        for request in list(self._late):
            if request.status == RequestStatus.PREEMPTED:
                self._wait_again(request)
                if request.num_stale_output_tokens:
                    continue
            self._late.remove(request)

    def _prefilling(self) -> Iterator[Request]:
        return (r for r in self._inflight_prefills if r.status == RequestStatus.RUNNING)

    def _recount(self) -> None:
        counted, self._tally = self._tally, Tally()
        for request in self.requests.values():
            if request.is_finished():
                continue
            self._tally.add(request.request_id, request.num_tokens, request.arrival_time)
            if request.status == RequestStatus.RUNNING:
                self._tally.admit(request.request_id)
            elif request.num_preemptions or request.resumable:
                self._wait_again(request)
        self.recounted += counted != self._tally

    def _kv_used_tokens(self) -> int:
        free = self.kv_cache_manager.block_pool.get_num_free_blocks()
        return int(self._kv_blocks - free) * self.block_size

    def _oldest_wait_s(self) -> float:
        """Emulated age of the oldest request without a token; 0 for none."""
        oldest_s = self._tally.oldest_arrival_s
        for request in self._prefilling():
            if not request.num_output_tokens:
                at_s = request.arrival_time
                oldest_s = at_s if oldest_s is None else min(oldest_s, at_s)
        if oldest_s is None:
            return 0.0
        return max(0.0, time.time() - oldest_s) / self._dilation

    def _publish(self) -> None:
        tally, costs = self._tally, self._step_time
        running, waiting = self.get_request_counts()
        prefilling = tokens = 0
        left = tally.waiting_tokens
        squares = tally.waiting_squares
        for request in self._prefilling():
            size, computed = request.num_tokens, request.num_computed_tokens
            prefilling += 1
            tokens += size
            left += size - computed
            squares += size * size - computed * computed
        decodes = running - prefilling
        contexts = tally.holding_tokens - tally.waiting_tokens - tokens
        integers, floats = self._integers, self._floats
        floats[TIME_S] = time.monotonic()
        integers[RUNNING] = running
        integers[WAITING] = waiting
        integers[HOLDING] = tally.holding_tokens
        integers[WAITING_TOKENS] = tally.waiting_tokens
        integers[KV_USED] = self._kv_used_tokens()
        integers[KV_CAPACITY] = self._kv_blocks * self.block_size
        integers[PREFILL_TOKENS] = left
        floats[PREFILL_S] = (
            costs.prefill_s_per_token * left + 0.5 * costs.attention_s_per_pair * squares
        )
        integers[DECODE_SEQS] = decodes
        floats[DECODE_S] = costs.decode_s(decodes, contexts)
        floats[OLDEST_WAIT_S] = self._oldest_wait_s()
        self._publisher.publish()


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


class ReportingScheduler(Reporting, Scheduler):
    """vLLM's scheduler, reporting."""


class ReportingAsyncScheduler(Reporting, AsyncScheduler):
    """vLLM's scheduler that runs a step ahead, reporting."""


def reporting(choose: Callable[[SchedulerConfig], type]) -> Callable[[SchedulerConfig], type]:
    """VLLM's choice of a scheduler class, made to report.

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
