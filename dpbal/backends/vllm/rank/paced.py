"""vLLM's scheduler, which also tells the other ranks what it has, and keeps to the budget."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from vllm.logger import init_logger
from vllm.v1.request import Request, RequestStatus

from dpbal.backends.vllm.rank.counting import Counting
from dpbal.backends.vllm.rank.pacing import Pacing
from dpbal.backends.vllm.settings import REPORTS, Settings, address
from dpbal.core import VECTOR, column
from dpbal.errors import ConfigError
from dpbal.step_time import queued_s

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.engine.core import DPEngineCoreProc

    from dpbal.step_time import StepTime

RUNNING = RequestStatus.RUNNING
"""A name that is found faster: every decode of every step asks for it."""

LOG = init_logger(f"vllm.{__name__}")  # vLLM shows what is below its own name

DECODE_S = column("decode_s", VECTOR)
DECODE_SEQS = column("decode_seqs", VECTOR)
PREFILL_S = column("prefill_s", VECTOR)
PREFILL_TOKENS = column("prefill_tokens", VECTOR)
PREFILL_REQUESTS = column("prefill_requests", VECTOR)
WAIT_S = column("wait_s", VECTOR)
OLDEST_WAIT_S = column("oldest_wait_s", VECTOR)
CAPACITY_BOUND = column("capacity_bound", VECTOR)
STEP_S = column("step_s", VECTOR)
DONE_PREFILL_S = column("done_prefill_s", VECTOR)
DONE_DECODE_S = column("done_decode_s", VECTOR)
DONE_TOKENS = column("done_tokens", VECTOR)


class Done(NamedTuple):
    """What a step has been given.

    Attributes:
        prefill_s: What the profile says that its prefill takes.
        decode_s: And its decodes.
        tokens: Of both.
    """

    prefill_s: float = 0.0
    decode_s: float = 0.0
    tokens: int = 0


class Paced(Counting):
    """A scheduler whose steps hold no more prefill than the group's budget allows.

    Each request's next chunk is cut to what is left of the limits, in the order in which vLLM comes
    to them: those in the batch, then those that wait. A chunk that is cut to nothing is left out of
    the step; nobody is preempted for it, and decodes behind it go on.
    """

    def _pacing_of(self, settings: Settings) -> Pacing | None:
        """This rank's end of the budget; None where there is nothing to limit.

        In an independent group budgets do nothing, as in the simulator.
        """
        budget = settings.budget
        if budget.is_static or not settings.is_lockstep:
            return None
        parallel = self.parallel_config
        rank = parallel.data_parallel_index
        vectors = None
        if budget.needs_vectors:
            vectors = settings.transport.vectors(address(REPORTS), rank)
        return Pacing(
            budget,
            settings.step_time,
            parallel.data_parallel_size,
            rank,
            self.scheduler_config.max_num_batched_tokens,
            self.vllm_config.max_concurrent_batches,
            vectors,
        )

    def _start_pacing(self, pacing: Pacing | None, step_time: StepTime, dilation: float) -> None:
        self._pacing = pacing
        self._step_time = step_time
        self._dilation = dilation
        self._alone: deque[bool] = deque()  # of the steps under way
        if pacing is None:
            return
        if self.need_mamba_block_aligned_split:
            raise ConfigError(
                "a budget cuts prompts anywhere, and this model's prefix cache cannot; "
                "type --no-enable-prefix-caching, or budget=fixed"
            )
        self._vector_integers = pacing.own.view("int64").data
        self._vector_floats = cast("memoryview[float]", pacing.own.view("float64").data)
        self._charged: dict[str, tuple[int, int]] = {}  # by request: its context, prompt tokens
        self._done = deque([Done()] * pacing.lag)
        self._decodes, self._contexts = 0, 0
        self._paced_s = 0.0
        self._turns_at_work = 0  # without one in between that had nothing to compute
        # every decode of every step comes here, and should not come in vain
        self._reserve_prefill_lookahead = self._reserve_within_budget  # type: ignore[method-assign]

    def pace(self, wave: int, step: int, took_s: Callable[[int], float] | None) -> None:
        """A step of the group is next, whether or not this rank has anything for it.

        Args:
            wave: Which time that the group has work.
            step: Steps of the wave before this one.
            took_s: Says how long the step took that was started so many steps ago; None for an
                executor that cannot tell.
        """
        pacing = self._pacing
        if pacing is None:
            return
        turn_s = self._turn_s(step)
        step_s = turn_s if took_s is None else took_s(pacing.lag)
        self._fill_vector(step_s if step >= pacing.lag else 0.0)
        pacing.begin(wave, step)
        self._done.append(Done())  # of a step that this rank sits out

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        """Schedule a step, with no more prefill than the budget allows."""
        pacing = self._pacing
        if pacing is None:
            return super().schedule(throttle_prefills)
        pacing.restart()
        self._charged.clear()
        before = self._preempted
        output = super().schedule(throttle_prefills)
        if pacing.limit_tokens > 0 and self._preempted == before:
            self._vector_integers[CAPACITY_BOUND] = self.prefill_capacity_bound
        self._note_done(output)
        self._alone.append(pacing.is_alone)
        return output

    def shutdown(self) -> None:
        """Serve no more."""
        if self._pacing is not None:
            pacing = self._pacing
            if pacing.steps:
                LOG.info(
                    "dpbal: in %d of %d steps this rank did not know the others' vectors",
                    pacing.alone_steps,
                    pacing.steps,
                )
            pacing.close()
        super().shutdown()

    def _turn_s(self, step: int) -> float:
        """How long the step ``lag`` steps ago took, from the host's clock; 0 where it cannot say.

        A turn with work waits for the end of a step, and the one before it has done so too, so that
        the time between is a step's. A dummy batch waits for nothing.
        """
        is_at_work = step > 0 and self._done[-1].tokens > 0
        self._turns_at_work = self._turns_at_work + 1 if is_at_work else 0
        began_s, self._paced_s = self._paced_s, time.perf_counter()
        lag = len(self._done)
        return self._paced_s - began_s if self._turns_at_work > lag else 0.0

    def _was_alone(self) -> bool:
        """Whether the oldest step under way was limited without knowledge of the other ranks."""
        return self._alone.popleft() if self._alone else False

    def _reserve_within_budget(
        self, request: Request, num_computed_tokens: int, num_new_tokens: int
    ) -> int:
        """Tokens of a request's next chunk: what vLLM's own method would allow, and the budget."""
        if request.status is RUNNING and not request.is_prefill_chunk:
            return num_new_tokens if num_new_tokens > 0 else 0
        reserve, pacing = super()._reserve_prefill_lookahead, self._pacing
        tokens: int = reserve(request, num_computed_tokens, num_new_tokens)
        if pacing is None or tokens == 0:
            return tokens
        # a last token may be padded for speculation: vLLM takes all of that or nothing
        prefill = min(tokens, request.num_tokens - num_computed_tokens)
        within = pacing.within(num_computed_tokens, prefill)
        if within < prefill:
            prefill = tokens = reserve(request, num_computed_tokens, within)
        if tokens:
            pacing.charge(num_computed_tokens, prefill)
            self._charged[request.request_id] = num_computed_tokens, prefill
        return tokens

    def _note_done(self, output: SchedulerOutput) -> None:
        costs = self._step_time
        total = output.total_num_scheduled_tokens
        if total == 0:
            return
        decodes, prefill_s = len(output.num_scheduled_tokens), 0.0
        for request_id, (context, tokens) in self._charged.items():
            if request_id in output.num_scheduled_tokens:  # else it had no KV blocks
                decodes -= 1
                prefill_s += costs.prefill_s(tokens, context)
        contexts = self._contexts * decodes // self._decodes if self._decodes else 0
        self._done[-1] = Done(prefill_s, costs.decode_s(decodes, contexts), total)

    def _fill_vector(self, step_s: float) -> None:
        costs = self._step_time
        now_s = time.time()
        prefilling = self._count_prefilling()
        decodes, contexts = self._count_decodes(prefilling)
        waiting = self._tally.line.admissible(
            self.max_num_running_reqs - len(self.running),
            self._free_kv_blocks(),
            self.block_size,
            now_s,
        )
        wait_s = prefilling.tokenless * now_s - prefilling.arrivals_s + waiting.wait_s
        oldest_wait_s = max(now_s - prefilling.oldest_s, waiting.oldest_wait_s, 0.0)
        done = self._done.popleft()
        integers, floats = self._vector_integers, self._vector_floats
        floats[DECODE_S] = costs.decode_s(decodes, contexts)
        integers[DECODE_SEQS] = decodes
        tokens = prefilling.left + waiting.tokens
        squares = prefilling.squares + waiting.squares
        floats[PREFILL_S] = queued_s(
            costs.prefill_s_per_token, costs.attention_s_per_pair, tokens, squares
        )
        integers[PREFILL_TOKENS] = tokens
        integers[PREFILL_REQUESTS] = prefilling.requests + waiting.requests
        floats[WAIT_S] = max(0.0, wait_s) / self._dilation
        floats[OLDEST_WAIT_S] = oldest_wait_s / self._dilation
        floats[STEP_S] = step_s
        floats[DONE_PREFILL_S] = done.prefill_s
        floats[DONE_DECODE_S] = done.decode_s
        integers[DONE_TOKENS] = done.tokens
        self._decodes, self._contexts = decodes, contexts


def telling_steps(step: Callable[[DPEngineCoreProc], bool]) -> Callable[[DPEngineCoreProc], bool]:
    """A turn of an engine's loop that first tells the scheduler which step of the group it is.

    An engine without requests does not come to its scheduler, though the others have to know of it;
    but every engine turns its loop once in each step of the group.
    """

    @wraps(step)
    def telling_step(self: Any) -> bool:
        if self.engines_running or self.scheduler.has_unfinished_requests():
            took_s = getattr(self.model_executor, "took_s", None)
            self.scheduler.pace(self.current_wave, self.step_counter, took_s)
        return step(self)

    return telling_step
