"""vLLM's scheduler, which also knows what it holds without walking all of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from dpbal.backends.vllm.rank.tally import Tally

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.outputs import ModelRunnerOutput

RECOUNT_STEPS = 4096
"""A full count over all requests every so many steps mends what the running count has missed."""


class Prefilling(NamedTuple):
    """The requests in the batch whose prompts are not complete.

    Attributes:
        requests: How many.
        tokens: Their prompt and output tokens.
        left: Of these, still to compute.
        squares: Sum of ``L**2 - c**2`` over L tokens of which c are computed.
        tokenless: How many have had no token yet.
        arrivals_s: When those came, added up.
        oldest_s: When the first of those came; infinity without one.
    """

    requests: int
    tokens: int
    left: int
    squares: int
    tokenless: int
    arrivals_s: float
    oldest_s: float


class Counting(Scheduler):
    """A scheduler that counts what it holds as it changes, and changes nothing that vLLM does.

    Requests that come, go, are preempted or admitted are counted one by one, and the tokens of a
    step from the number of outputs that it gave. Only the requests that are being prefilled are
    looked at in each step.

    Attributes:
        recounted: Full counts that found something else than the running count.
    """

    def _start_counting(self) -> None:
        self.recounted = 0
        self._tally = Tally()
        self._late: set[Request] = set()  # preempted ones that a step under way gives tokens
        self._processed = 0
        self._preempted = 0  # in the steps that have ended since the last report, and the next ones
        self._always_counts_tokens = (
            self.num_sampled_tokens_per_step != 1  # pooling, diffusion
            or self.connector is not None  # whose failed loads end requests without a token
            or self.ec_connector is not None
        )
        pool = self.kv_cache_manager.block_pool
        self._kv_blocks = pool.num_gpu_blocks - 1  # without vLLM's null block

    def add_request(self, request: Request) -> None:
        """Take a request."""
        if request.request_id not in self.requests:  # else it goes on with a session
            self._tally.add(request.request_id, request.num_tokens, request.arrival_time)
        super().add_request(request)

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
        """Take in what a step gave."""
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
        return outputs

    def _preempt_request(
        self, request: Request, timestamp: float, drop_stale_output: bool = False
    ) -> None:
        super()._preempt_request(request, timestamp, drop_stale_output)
        self._preempted += 1
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

    def _recount(self) -> None:
        counted, self._tally = self._tally, Tally()
        again = []
        for request in self.requests.values():
            if request.is_finished():
                continue
            self._tally.add(request.request_id, request.num_tokens, request.arrival_time)
            if request.status == RequestStatus.RUNNING:
                self._tally.admit(request.request_id)
            elif request.num_preemptions or request.resumable:
                self._tally.admit(request.request_id)
                again.append(request)
        for request in reversed(again):  # so that the oldest is at the front
            self._wait_again(request)
        for request_id in self.requests:
            self._tally.expect(request_id, counted.expected(request_id))
        self.recounted += counted != self._tally

    def _prefilling(self) -> Iterator[Request]:
        return (r for r in self._inflight_prefills if r.status == RequestStatus.RUNNING)

    def _count_prefilling(self) -> Prefilling:
        if not self._inflight_prefills:
            return NOBODY
        requests = tokens = left = squares = tokenless = 0
        arrivals_s, oldest_s = 0.0, float("inf")
        for request in self._prefilling():
            size, computed = request.num_tokens, request.num_computed_tokens
            requests += 1
            tokens += size
            left += size - computed
            squares += size * size - computed * computed
            if not request.num_output_tokens:
                tokenless += 1
                arrivals_s += request.arrival_time
                oldest_s = min(oldest_s, request.arrival_time)
        return Prefilling(requests, tokens, left, squares, tokenless, arrivals_s, oldest_s)

    def _count_decodes(self, prefilling: Prefilling) -> tuple[int, int]:
        """Requests in the batch whose prompts are complete, and the tokens in their contexts."""
        tally = self._tally
        contexts = tally.holding_tokens - tally.waiting_tokens - prefilling.tokens
        return len(self.running) - prefilling.requests, contexts

    def _free_kv_blocks(self) -> int:
        return int(self.kv_cache_manager.block_pool.get_num_free_blocks())


NOBODY = Prefilling(0, 0, 0, 0, 0, 0.0, float("inf"))
