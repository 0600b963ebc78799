"""What happens around the start of a server's engines: refusals, and what its processes share."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from dpbal.backends.vllm import indexing
from dpbal.backends.vllm.server import EXECUTOR
from dpbal.backends.vllm.settings import BARRIER, REPORTS, Settings
from dpbal.errors import ConfigError

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from dpbal.backends.vllm.indexing import Shared

Method = Callable[..., Any]


def coordinating(start: Method) -> Method:
    """A start of the coordinator that forks it where the engines will be forked."""

    @wraps(start)
    def start_coordinator(self: Any, parallel_config: Any, *args: Any, **kwargs: Any) -> None:
        if is_emulated_by(parallel_config.distributed_executor_backend):
            _fork_from_now_on()
        start(self, parallel_config, *args, **kwargs)

    return start_coordinator


def starting(start: Method, settings: Settings) -> Method:
    """A start of engines that first checks that nothing will bypass dpbal.

    The load reports, and what the ranks of an emulated lockstep group wait at, are made here, by
    the process that starts the engines, and removed when it stops them.
    """

    @wraps(start)
    def start_engines(self: Any, *args: Any, **kwargs: Any) -> None:
        vllm_config = kwargs["vllm_config"]
        is_emulated = is_emulated_by(kwargs["executor_class"])
        refuse(vllm_config, settings, is_emulated)
        parallel = vllm_config.parallel_config
        ranks = parallel.data_parallel_size
        dispatchers = settings.dispatchers(parallel._api_process_count)
        shared: dict[str, Shared] = {REPORTS: settings.transport.create(ranks, dispatchers)}
        shared.update(indexing.share(vllm_config, settings))
        if is_emulated:
            vllm_config.scheduler_config.async_scheduling = settings.async_scheduling
            _fork_from_now_on()
            if settings.is_lockstep:
                from dpbal.backends.vllm.barrier import Barrier

                shared[BARRIER] = Barrier.create(ranks)
        os.environ.update({name: place.address for name, place in shared.items()})
        self.dpbal_shared = list(shared.values())
        try:
            start(self, *args, **kwargs)
        except BaseException:
            _remove(self)
            raise

    return start_engines


def shutting_down(shut_down: Method) -> Method:
    """A shutdown of engines that also removes what their processes shared."""

    @wraps(shut_down)
    def shut_engines_down(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            shut_down(self, *args, **kwargs)
        finally:
            _remove(self)

    return shut_engines_down


def refusing_ray(start: Method) -> Method:
    """A start of engines through Ray, which dpbal does not reach."""

    @wraps(start)
    def refuse_to_start(self: Any, *args: Any, **kwargs: Any) -> None:
        raise ConfigError(
            "dpbal cannot balance engines that Ray starts; type --data-parallel-backend mp"
        )

    return refuse_to_start


def refuse(vllm_config: VllmConfig, settings: Settings, is_emulated: bool) -> None:
    """Refuse what would bypass the plug-in, or could not work with it.

    Raises:
        ConfigError: With the way out.
    """
    import vllm.envs as envs

    parallel = vllm_config.parallel_config
    is_moe = vllm_config.model_config.is_moe
    ranks = parallel.data_parallel_size
    kind = settings.config.group.kind.name
    if envs.VLLM_USE_RUST_FRONTEND:
        raise ConfigError(
            "vLLM's Rust front end chooses ranks without dpbal; unset VLLM_USE_RUST_FRONTEND"
        )
    if parallel.enable_elastic_ep:
        raise ConfigError(
            "dpbal cannot follow elastic EP, which changes the number of ranks; "
            "leave out --enable-elastic-ep"
        )
    if parallel.data_parallel_external_lb:
        raise ConfigError(
            "with an external load balancer vLLM's front end does not choose the rank; "
            "leave out --data-parallel-external-lb and --data-parallel-rank"
        )
    if ranks < 2:
        raise ConfigError(
            f"there is nothing to balance over {ranks} rank; type --data-parallel-size N, "
            "or serve without dpbal"
        )
    if parallel.data_parallel_size_local != ranks:
        raise ConfigError(
            f"transport {settings.config.transport['name']!r} reaches the ranks of one host, and "
            f"{parallel.data_parallel_size_local} of {ranks} are on this one; "
            "start all of them here"
        )
    if is_moe != settings.is_lockstep:
        steps = "in lockstep" if is_moe else "independently"
        raise ConfigError(
            f"group.kind is {kind}, but vLLM steps the ranks of this model {steps}; "
            f"set group.kind to {'lockstep' if is_moe else 'independent'}"
        )
    _refuse_budget(vllm_config, settings)
    indexing.refuse(vllm_config, settings)
    if is_emulated and ranks != settings.config.group.ranks:
        raise ConfigError(
            f"group.ranks is {settings.config.group.ranks}, but vLLM was asked for {ranks} ranks; "
            f"set group.ranks to {ranks}"
        )


def _refuse_budget(vllm_config: VllmConfig, settings: Settings) -> None:
    """Refuse a budget that this server cannot keep to, or that something else gets in the way of.

    Raises:
        ConfigError: With the way out.
    """
    scheduler, ranks = vllm_config.scheduler_config, vllm_config.parallel_config.data_parallel_size
    budget, name = settings.budget, settings.config.budget["name"]
    budget.start(ranks, settings.step_time, scheduler.max_num_batched_tokens)
    if scheduler.prefill_schedule_interval > 1:
        out = "leave out --prefill-schedule-interval (backend.prefill_schedule_interval=null)"
        if not settings.is_lockstep:
            raise ConfigError(
                f"vLLM's prefill interval does nothing where ranks step alone; {out}, "
                "or take a mixture of experts (group.kind=lockstep)"
            )
        if not budget.is_static:
            raise ConfigError(
                f"vLLM's prefill interval and budget {name!r} would both hold prefill back; {out}, "
                "or type budget=fixed"
            )
    if budget.is_static:
        return
    if vllm_config.model_config.is_encoder_decoder:
        raise ConfigError(
            f"budget {name!r} cuts prompts into chunks, and this model's encoder takes a prompt "
            "whole; type budget=fixed"
        )
    if not scheduler.enable_chunked_prefill:
        raise ConfigError(
            f"budget {name!r} cuts prompts into chunks; leave out --no-enable-chunked-prefill, "
            "or type budget=fixed"
        )
    if scheduler.disable_chunked_mm_input:
        raise ConfigError(
            f"budget {name!r} cuts prompts anywhere, also within an image; "
            "leave out --disable-chunked-mm-input, or type budget=fixed"
        )


def is_emulated_by(executor: type | str | None) -> bool:
    """Whether an executor, or the path of one, is dpbal's without a model."""
    if isinstance(executor, type):
        return any(f"{kind.__module__}.{kind.__qualname__}" == EXECUTOR for kind in executor.mro())
    return executor == EXECUTOR


def _fork_from_now_on() -> None:
    # vLLM's own default, which its CPU platform overrides for the sake of its workers: without
    # them, processes start at once from the modules that are loaded here
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"


def _remove(manager: Any) -> None:
    for place in getattr(manager, "dpbal_shared", ()):
        place.close()
