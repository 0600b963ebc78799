"""What a server of emulated engines is started with: its arguments, its files, its environment."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dpbal.backends.base import Parts
from dpbal.backends.vllm.emulated import EXECUTOR, model
from dpbal.backends.vllm.settings import CONFIG, RECORDS
from dpbal.config import Config, to_dict
from dpbal.errors import DpbalError
from dpbal.modes import GroupKind

if TYPE_CHECKING:
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    from dpbal.backends.vllm.backend import Vllm


class EngineError(DpbalError, RuntimeError):
    """Engines that did not start, or that died."""


def records(folder: Path) -> Path:
    """Where in a run's folder its engines write."""
    return folder / "records"


def engine_args(backend: Vllm, parts: Parts, folder: Path, longest: int) -> AsyncEngineArgs:
    """The arguments of the server.

    Args:
        backend: What the engines are.
        parts: The combination.
        folder: The run's own; the model is written there.
        longest: Most tokens of a request, prompt and output.
    """
    from vllm import AsyncEngineArgs

    is_moe = parts.kind is GroupKind.lockstep
    capacity = backend.kv_capacity_tokens or parts.step_time.kv_capacity_tokens
    capacity -= capacity % backend.block_size
    length = min(capacity, longest + 1)
    return AsyncEngineArgs(
        **model.arguments(folder / "model", is_moe, length),
        data_parallel_size=parts.ranks,
        data_parallel_size_local=parts.ranks,
        data_parallel_backend="mp",
        data_parallel_address="127.0.0.1",
        distributed_executor_backend=EXECUTOR,
        max_num_batched_tokens=backend.max_num_batched_tokens,
        max_num_seqs=backend.max_num_seqs,
        block_size=backend.block_size,
        enable_prefix_caching=backend.prefix_cache,
        prefill_schedule_interval=backend.prefill_schedule_interval or 1,
        stream_interval=longest,  # a first token and a last one
        disable_log_stats=True,
    )


@contextmanager
def environment(folder: Path, config: Config) -> Iterator[None]:
    """What the processes of the server, their logs and their sockets need to know."""
    from omegaconf import OmegaConf

    path = folder / "config.yaml"
    OmegaConf.save(OmegaConf.create(to_dict(config)), path)
    records(folder).mkdir()
    changes = {
        CONFIG: str(path),
        RECORDS: str(records(folder)),
        "HF_HUB_OFFLINE": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_RPC_BASE_PATH": str(folder),
    }
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@asynccontextmanager
async def running(args: AsyncEngineArgs) -> AsyncIterator[AsyncLLM]:
    """The engines and their front end, stopped afterwards.

    Raises:
        EngineError: If they did not start.
    """
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        llm = AsyncLLM.from_engine_args(args)
    except DpbalError:
        raise
    except Exception as error:
        raise EngineError(
            f"the engines did not start: {error}; VLLM_LOGGING_LEVEL=INFO says more"
        ) from error
    try:
        yield llm
    finally:
        llm.shutdown(timeout=5)
