"""vLLM's scheduler, which also says how long its steps take by the profile, for an operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dpbal.backends.vllm.rank.paced import Paced

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput

    from dpbal.backends.vllm.metrics.telemetry import RankTelemetry


class Telling(Paced):
    """A scheduler that counts its steps in the host's telemetry, if there is one.

    The seconds are ``StepTime.local_s`` of what the step holds. Only requests that are being
    prefilled are looked at; contexts of decodes are summed as reports sum them.
    """

    _telling: RankTelemetry | None = None

    def _start_telling(self, telling: RankTelemetry | None) -> None:
        self._telling = telling
        # a decode of a scheduler that is a step ahead has one more token on its way
        self._ahead = self.vllm_config.max_concurrent_batches - 1

    def pace(self, wave: int, step: int, took_s: Callable[[int], float] | None) -> None:
        """A step of the group is next, whether or not this rank has anything for it."""
        super().pace(wave, step, took_s)
        telling = self._telling
        if telling is not None:
            telling.begin(wave, step)
            if self._pacing is not None:
                telling.pace(self._pacing)

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        """Schedule a step, and say how long it takes."""
        telling = self._telling
        if telling is None:
            return super().schedule(throttle_prefills)
        computed = {r.request_id: r.num_computed_tokens for r in self._prefilling()}
        decodes, contexts = self._count_decodes(self._count_prefilling())
        output = super().schedule(throttle_prefills)
        if output.total_num_scheduled_tokens:
            contexts += decodes * self._ahead
            telling.give(self._local_s(output, computed, decodes, contexts))
        return output

    def rest(self) -> None:
        """No rank of the group has anything left to do."""
        if self._telling is not None:
            self._telling.rest()

    def shutdown(self) -> None:
        """Serve no more."""
        if self._telling is not None:
            self._telling.close()
        super().shutdown()

    def _local_s(
        self, output: SchedulerOutput, computed: dict[str, int], running: int, contexts: int
    ) -> float:
        """Seconds of a step, by the profile.

        Args:
            output: The step.
            computed: Of each request that was being prefilled, the tokens that were computed.
            running: Requests that were decoding, of which some may be left out of the step.
            contexts: Tokens in the contexts of all of them.
        """
        for new in output.scheduled_new_reqs:
            computed[new.req_id] = new.num_computed_tokens
        cached = output.scheduled_cached_reqs
        if cached.resumed_req_ids:
            several = zip(cached.req_ids, cached.num_computed_tokens, strict=True)
            computed.update(pair for pair in several if pair[0] in cached.resumed_req_ids)
        scheduled = output.num_scheduled_tokens
        prefills = tokens = 0
        pairs = 0.0
        for request_id, context in computed.items():
            chunk = scheduled.get(request_id, 0)
            if chunk:
                prefills += 1
                tokens += chunk
                pairs += chunk * (context + 0.5 * chunk)
        decodes = len(scheduled) - prefills
        if decodes != running:
            contexts = contexts * decodes // running if running else 0
        return self._step_time.local_s(tokens, decodes, contexts, pairs)
