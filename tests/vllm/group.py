"""Real engines with a front end, and what a test may do to their requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpbal.backends.vllm.emulated import EXECUTOR, model
from dpbal.backends.vllm.front_end.front_end import FrontEnd
from dpbal.backends.vllm.front_end.prefixes import Prompt
from dpbal.backends.vllm.plugin import installed
from dpbal.backends.vllm.settings import Settings
from dpbal.core import LoadTable, Request
from dpbal.parts import build_dispatcher

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

RANKS = 2
DISPATCHERS = 2
LENGTH = 1024
KV_TOKENS = 2048
"""What a rank holds: two of the longest requests."""

PATIENCE_S = 240.0


class Group:
    """Real engines with a front end.

    Args:
        llm: vLLM's end.
        front_end: dpbal's.
    """

    def __init__(self, llm: AsyncLLM, front_end: FrontEnd) -> None:
        self._llm = llm
        self.client: Any = llm.engine_core
        self.front_end = front_end
        self._sent = 0

    @property
    def engines(self) -> list[int]:
        """Process ids of the engines, by rank."""
        return [process.pid for process in self.client.resources.engine_manager.processes]

    @property
    def dispatched(self) -> int:
        """Dispatches so far."""
        return sum(self.sequences)

    @property
    def sequences(self) -> list[int]:
        """The last dispatch of each dispatcher."""
        return [dispatcher.ledger.sequence for dispatcher in self.front_end.dispatchers]

    @property
    def acknowledged(self) -> list[int]:
        """The last dispatch of each dispatcher that any rank has reported to have received."""
        self.front_end.observe()
        table = self.front_end.dispatchers[0].table
        last: list[int] = table.received_sequence.max(axis=0).tolist()
        return last

    @property
    def in_flight(self) -> list[int]:
        """Requests in flight to each rank."""
        self.front_end.observe()
        several = [d.ledger.in_flight.requests.tolist() for d in self.front_end.dispatchers]
        return [sum(ranks) for ranks in zip(*several, strict=True)]

    @property
    def outstanding(self) -> list[int]:
        """Requests that have not ended, of each rank."""
        several = [d.ledger.outstanding.tolist() for d in self.front_end.dispatchers]
        return [sum(ranks) for ranks in zip(*several, strict=True)]

    async def ask(
        self,
        prompt_tokens: int = 8,
        output_tokens: int = 4,
        rank: int | None = None,
        n: int = 1,
        has_begun: asyncio.Event | None = None,
    ) -> list[int]:
        """Send a request and wait for its end: the number of tokens of each of its answers."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._sent += 1
        number = self._sent
        tokens: Any = {"prompt_token_ids": [20 + number % 30_000] * prompt_tokens}
        params = SamplingParams(
            max_tokens=output_tokens,
            n=n,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.CUMULATIVE,
        )
        given = [0] * n
        async for output in self._llm.generate(
            tokens, params, str(number), data_parallel_rank=rank
        ):
            for answer in output.outputs:
                given[answer.index] = len(answer.token_ids)
            if has_begun is not None:
                has_begun.set()
        return given

    async def place(self, tokens: list[int], output_tokens: int = 1) -> tuple[int, int]:
        """Send a prompt and wait for its end: its rank, and its tokens that were cached there."""
        from vllm import SamplingParams

        self._sent += 1
        before = self.outstanding
        given: Any = {"prompt_token_ids": tokens}
        params = SamplingParams(max_tokens=output_tokens, ignore_eos=True, detokenize=False)
        queue = await self._llm.add_request(str(self._sent), given, params)
        (rank,) = (k for k, count in enumerate(self.outstanding) if count > before[k])
        output = await queue.get()
        while not output.finished:
            output = await queue.get()
        return rank, output.num_cached_tokens or 0

    def leading_blocks(self, tokens: list[int]) -> list[list[int]]:
        """Blocks of a prompt that each dispatcher believes each rank to hold."""
        self.front_end.take_in_events()
        request = Request(
            "?",
            0.0,
            len(tokens),
            block_hashes=Prompt(len(tokens), tokens).block_hashes(),
            block_tokens=Prompt(0).block_tokens,
        )
        indexers = [dispatcher.indexer for dispatcher in self.front_end.dispatchers]
        return [indexer.match(request).tolist() for indexer in indexers if indexer is not None]

    async def reset(self) -> bool:
        """Clear the prefix cache of all ranks."""
        return await self._llm.reset_prefix_cache()

    async def cancel(self, *tasks: asyncio.Task[Any]) -> None:
        """End tasks from outside, and wait for their ends."""
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def until(self, happens: Callable[[], bool]) -> bool:
        """Wait until something is so; whether it came to be."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while not happens():
                    await asyncio.sleep(0.005)
        return bool(happens())

    async def state(self) -> dict[str, Any]:
        """What is in flight when the engines have reported, and after a while at the latest."""
        await self.until(self._is_quiet)
        reports = self.front_end.dispatchers[0].table.reports
        return {
            "in_flight": self.in_flight,
            "tokens": [d.ledger.in_flight.tokens.tolist() for d in self.front_end.dispatchers],
            "outstanding": self.outstanding,
            "owners": len(self.front_end._owners),
            "holding_tokens": reports["holding_tokens"].tolist(),
            "waiting": reports["waiting"].tolist(),
            "kv_used_tokens": reports["kv_used_tokens"].tolist(),
        }

    def _is_quiet(self) -> bool:
        holding = self.front_end.dispatchers[0].table.reports["holding_tokens"]
        return not (
            any(self.in_flight) or any(self.outstanding) or self.front_end._owners or holding.any()
        )


@asynccontextmanager
async def engines(settings: Settings, folder: Path) -> AsyncIterator[Group]:
    """A group of real engines."""
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    made: list[FrontEnd] = []

    def front_end(ranks: int, number: int, count: int) -> FrontEnd:
        table = LoadTable(ranks, DISPATCHERS)
        dispatchers = [
            build_dispatcher(settings.config, table, number, epoch=1 + number)
            for number in range(DISPATCHERS)
        ]
        made.append(FrontEnd.connect(settings, dispatchers))
        return made[0]

    engine_args = AsyncEngineArgs(
        **model.arguments(folder / "model", settings.is_lockstep, LENGTH),
        data_parallel_size=RANKS,
        data_parallel_size_local=RANKS,
        data_parallel_backend="mp",
        data_parallel_address="127.0.0.1",
        distributed_executor_backend=EXECUTOR,
        max_num_batched_tokens=1024,
        max_num_seqs=256,
        block_size=16,
        disable_log_stats=True,
    )
    with installed(settings, front_end):
        llm = AsyncLLM.from_engine_args(engine_args)
        try:
            yield Group(llm, made[0])
        finally:
            llm.shutdown(timeout=5)
