"""Sends requests to real engines at their times, and notes what becomes of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.v1.engine.exceptions import EngineDeadError

from dpbal.backends.base import REQUEST_RECORD, Outcome
from dpbal.backends.vllm.runs.prompts import prompt
from dpbal.backends.vllm.runs.server import EngineError, running
from dpbal.core import Request
from dpbal.workloads.base import Requests

if TYPE_CHECKING:
    from vllm import AsyncEngineArgs, RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

    from dpbal.backends.vllm.backend import Vllm

LEAD_S = 0.5
"""Between the moment that everything is ready and the first arrival."""

PATIENCE_S = 60.0
POLL_S = 0.01


class Replay:
    """An open-loop client: a request is sent at its time, whatever became of those before.

    Args:
        requests: What is sent.
        backend: To what.
        ranks: How many there are.
        is_lockstep: Whether they step together.
        progress: Told now and then how many requests have been sent.

    Attributes:
        rows: ``REQUEST_RECORD[n]``, times in seconds on the emulated clock.
        start_s: Monotonic time of the emulated clock's 0.
        wall_s: Seconds from then until the last request ended.
    """

    def __init__(
        self,
        requests: Requests,
        backend: Vllm,
        ranks: int,
        is_lockstep: bool,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._requests = requests
        self._backend = backend
        self._ranks = ranks
        self._is_lockstep = is_lockstep
        self._progress = progress
        self.start_s = 0.0
        self.wall_s = 0.0
        self.rows = np.zeros(len(requests), REQUEST_RECORD)
        self.rows["arrival_s"] = requests.arrival_s
        self.rows["prompt_tokens"] = requests.prompt_tokens
        for field in ("dispatch_s", "first_token_s", "finish_s"):
            self.rows[field] = np.nan
        self.rows["rank"] = -1
        self.rows["dispatcher"] = -1
        self.rows["outcome"] = Outcome.unfinished

    async def run(self, engine_args: AsyncEngineArgs) -> None:
        """Start the engines, send everything, wait for the end, and stop the engines.

        Raises:
            EngineError: If the engines did not start or come to rest, or one of them died.
        """
        async with running(engine_args) as llm:
            try:
                await self._warm_up(llm)
                await self._replay(llm)
            except* EngineDeadError:
                ended = int((self.rows["outcome"] == Outcome.finished).sum())
                raise EngineError(
                    f"an engine died after {ended} of {len(self.rows)} requests had finished; "
                    "VLLM_LOGGING_LEVEL=INFO says more"
                ) from None

    async def _warm_up(self, llm: AsyncLLM) -> None:
        """A request for each rank, so that nothing is loaded or compiled later."""

        async def ask(rank: int) -> None:
            params = SamplingParams(max_tokens=2, ignore_eos=True, detokenize=False)
            tokens: Any = {"prompt_token_ids": [1 + rank]}
            async for _ in llm.generate(tokens, params, f"warm-up {rank}", data_parallel_rank=rank):
                pass

        await asyncio.gather(*(ask(rank) for rank in range(self._ranks)))
        if self._is_lockstep:  # ranks go on for some steps before they agree that all is done
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while llm.engine_core.dp_engines_running():
                        await asyncio.sleep(POLL_S)
            except TimeoutError:
                raise EngineError(
                    f"the engines have not come to rest within {PATIENCE_S:.0f} s of their first "
                    "requests; VLLM_LOGGING_LEVEL=INFO says more"
                ) from None

    async def _replay(self, llm: AsyncLLM) -> None:
        k = self._backend.dilation
        limit_s = self._backend.max_time_s
        self.start_s = time.monotonic() + LEAD_S
        tasks = []
        async with asyncio.TaskGroup() as group:
            for number, request in enumerate(self._requests):
                if limit_s is not None and request.arrival_s > limit_s:
                    break
                wait_s = self.start_s + k * request.arrival_s - time.monotonic()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                tasks.append(group.create_task(self._send(llm, number, request)))
                if self._progress is not None and number % 16 == 0:
                    self._progress(number)
            if limit_s is not None:
                left_s = self.start_s + k * limit_s - time.monotonic()
                _, late = await asyncio.wait(tasks, timeout=max(0.0, left_s))
                for task in late:
                    task.cancel()
        self.wall_s = time.monotonic() - self.start_s

    async def _send(self, llm: AsyncLLM, number: int, request: Request) -> None:
        row = self.rows[number]
        output_tokens = int(self._requests.output_tokens[number])
        params = SamplingParams(
            max_tokens=output_tokens,
            ignore_eos=True,
            detokenize=False,
            stream_interval=output_tokens,
        )
        tokens: Any = {
            "prompt_token_ids": prompt(request, number, self._requests.hash_block_tokens)
        }
        request_id = str(number)
        row["dispatch_s"] = self._now_s()
        try:
            queue = await llm.add_request(
                request_id,
                tokens,
                params,
                data_parallel_rank=request.pinned_rank,
                session_id=None if request.session is None else str(request.session),
            )
        except VLLMValidationError:  # longer than the KV cache holds
            row["outcome"] = Outcome.failed
            return
        try:
            row["rank"] = _rank(llm, request_id)
            output = queue.get_nowait() or await queue.get()
            row["first_token_s"] = self._now_s()
            while not output.finished:
                output = queue.get_nowait() or await queue.get()
        except asyncio.CancelledError:
            await llm.abort(request_id)
            raise
        row["finish_s"] = self._now_s()
        given = len(cast("RequestOutput", output).outputs[0].token_ids)
        row["output_tokens"] = given
        row["cached_tokens"] = output.num_cached_tokens
        row["outcome"] = Outcome.finished if given == output_tokens else Outcome.failed

    def _now_s(self) -> float:
        return (time.monotonic() - self.start_s) / self._backend.dilation


def _rank(llm: AsyncLLM, request_id: str) -> int:
    """The rank that a request has just been sent to."""
    client: Any = llm.engine_core
    sent = client.reqs_in_flight
    engine = next(sent[key] for key in reversed(sent) if key.startswith(f"{request_id}-"))
    return int(client.core_engines.index(engine))
