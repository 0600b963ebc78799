"""An executor without a model: real engines, and steps that take the time the profile says."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from vllm.v1.executor.abstract import Executor
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, ModelRunnerOutput

from dpbal.backends.vllm.emulated.barrier import LockstepDevice
from dpbal.backends.vllm.emulated.batch import Batch, Sampled, Work
from dpbal.backends.vllm.emulated.device import Device, IndependentDevice, Step, Ticket
from dpbal.backends.vllm.settings import BARRIER, Settings, address
from dpbal.errors import ConfigError

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput


T = TypeVar("T")


@dataclass
class EmulatedOutput(ModelRunnerOutput):
    """A step's tokens, and when it ran.

    Args:
        step: When.
        work: What it computed.
        local_s: How long the rank's own part took, undilated.
        next_tokens: Tokens that follow one of the step before.
        late: For each token that does not, and is not a first one, the step of the one before.
    """

    step: Step = field(default_factory=lambda: Step(0, 0.0, 0.0, False))
    work: Work = field(default_factory=Work)
    local_s: float = 0.0
    next_tokens: int = 0
    late: tuple[int, ...] = ()


class _Pending(Future[ModelRunnerOutput]):
    """A step under way; asking for its result waits for its end."""

    def __init__(self, device: Device, ticket: Ticket, sampled: Sampled) -> None:
        super().__init__()
        self._device = device
        self._ticket = ticket
        self._sampled = sampled

    def result(self, timeout: float | None = None) -> ModelRunnerOutput:
        if not self.done():
            step = self._device.finish(self._ticket)
            ids, tokens, next_tokens, late = self._sampled
            self.set_result(
                EmulatedOutput(
                    req_ids=ids,
                    req_id_to_index={request_id: i for i, request_id in enumerate(ids)},
                    sampled_token_ids=tokens,
                    step=step,
                    work=self._ticket.work,
                    local_s=self._ticket.local_s,
                    next_tokens=next_tokens,
                    late=tuple(late),
                )
            )
        return super().result(timeout)


class EmulatedExecutor(Executor):
    """Stands for the workers of one rank: ``--distributed-executor-backend`` takes its path.

    The scheduler, the KV cache manager with its prefix cache, the sockets, the coordinator and the
    front end are vLLM's own; only the model is not there. Profile and dilation come from the
    config that ``DPBAL_CONFIG`` names.
    """

    supports_pp = False

    @classmethod
    def supports_async_scheduling(cls) -> bool:
        """A step may be submitted before the one before it has ended."""
        return True

    def took_s(self, back: int) -> float:
        """How long the step took that was started ``back`` steps ago, undilated; 0 if unknown."""
        return self._device.took_s(back)

    def _init_executor(self) -> None:
        self._settings = Settings.from_environment()
        if self.vllm_config.speculative_config is not None:
            raise ConfigError("an emulated GPU has no draft model; leave speculative decoding out")
        self._batch = Batch()
        self._device = _device(self._settings, self.parallel_config.data_parallel_index)
        self._last: _Pending | None = None

    def execute_model(  # type: ignore[override]
        self, scheduler_output: SchedulerOutput, non_block: bool = False
    ) -> ModelRunnerOutput | Future[ModelRunnerOutput]:
        """Start a step; without tokens there is none, and the engine may have nothing to do."""
        if scheduler_output.total_num_scheduled_tokens == 0:
            self._batch.forget(scheduler_output.finished_req_ids)
            self._device.idle()
            return _done(EMPTY_MODEL_RUNNER_OUTPUT) if non_block else EMPTY_MODEL_RUNNER_OUTPUT
        work, sampled = self._batch.take(scheduler_output)
        self._last = _Pending(self._device, self._device.submit(work), sampled)
        return self._last if non_block else self._last.result()

    def sample_tokens(  # type: ignore[override]
        self, grammar_output: Any, non_block: bool = False
    ) -> ModelRunnerOutput | Future[ModelRunnerOutput]:
        """The tokens of the step started last, which were sampled with it."""
        if self._last is None:
            raise RuntimeError("no step has been started")
        return self._last if non_block else self._last.result()

    def execute_dummy_batch(self) -> None:
        """A step of an idle rank in a lockstep group."""
        self._device.finish(self._device.submit(Work()))

    def take_draft_token_ids(self) -> None:
        """No draft model."""
        return

    def check_health(self) -> None:
        """There is nothing that could break."""

    def shutdown(self) -> None:
        """Let go of the other ranks."""
        self._device.close()

    def collective_rpc(
        self,
        method: Any,
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        non_block: bool = False,
    ) -> Any:
        """Answer for the one worker that is not there."""
        if method not in ANSWERS:
            raise NotImplementedError(f"an emulated GPU cannot {method!r}")
        answer = [ANSWERS[method](self)]
        return _done(answer) if non_block else answer

    def kv_cache_spec(self) -> dict[str, FullAttentionSpec]:
        """One layer, so that a block of the cache is a block of tokens."""
        spec = FullAttentionSpec(
            block_size=self.cache_config.block_size,
            num_kv_heads=1,
            head_size=16,
            dtype=torch.bfloat16,
        )
        return {"emulated": spec}

    def memory_bytes(self) -> int:
        """What the KV cache may take."""
        (spec,) = self.kv_cache_spec().values()
        blocks = self._settings.kv_capacity_tokens // spec.block_size
        return (blocks + 1) * spec.page_size_bytes  # one block is vLLM's null block

    def compile_or_warm_up_model(self) -> None:
        """Nothing to warm up."""


def _device(settings: Settings, rank: int) -> Device:
    """The emulated GPU of a rank.

    Raises:
        ConfigError: If the other ranks of a lockstep group cannot be found.
    """
    if not settings.is_lockstep:
        return IndependentDevice(settings.step_time, settings.dilation)
    return LockstepDevice(settings.step_time, settings.dilation, address(BARRIER), rank)


def _done(result: T) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(result)
    return future


def _nothing(executor: EmulatedExecutor) -> None:
    return


ANSWERS: dict[str, Callable[[EmulatedExecutor], Any]] = {
    "determine_available_memory": EmulatedExecutor.memory_bytes,
    "get_kv_cache_spec": EmulatedExecutor.kv_cache_spec,
    "get_supported_kv_cache_layouts": lambda _: ["LBNHC"],
    "get_supported_tasks": lambda _: ("generate",),
    "initialize_from_config": _nothing,
    "reset_encoder_cache": _nothing,
    "reset_mm_cache": _nothing,
    "set_kv_cache_layout": _nothing,
    "synchronize_device": _nothing,
    "update_max_model_len": _nothing,
}
"""What an engine asks of its workers."""
