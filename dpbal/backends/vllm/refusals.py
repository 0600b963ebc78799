"""What would bypass dpbal in a vLLM server, or could not work with it, and what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpbal.backends.vllm.front_end import indexing
from dpbal.backends.vllm.hosts import group_size
from dpbal.backends.vllm.settings import Settings
from dpbal.errors import ConfigError

if TYPE_CHECKING:
    from vllm.config import VllmConfig


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
            "leave out --data-parallel-external-lb and --data-parallel-rank, and give each host "
            "two ranks or more with --data-parallel-hybrid-lb"
        )
    if ranks < 2:
        raise ConfigError(
            f"there is nothing to balance over {ranks} rank; type --data-parallel-size N, "
            "or serve without dpbal"
        )
    if parallel.data_parallel_hybrid_lb:
        _refuse_hybrid(parallel.data_parallel_size_local, settings)
    elif parallel.data_parallel_size_local != ranks:
        _refuse_hosts(vllm_config, settings)
    if parallel.data_parallel_size_local != ranks and is_emulated and settings.is_lockstep:
        raise ConfigError(
            "emulated ranks of a lockstep group wait for each other on one host; start all of them "
            "here, or serve a dense model with group.kind=independent"
        )
    if is_moe != settings.is_lockstep:
        steps = "in lockstep" if is_moe else "independently"
        raise ConfigError(
            f"group.kind is {kind}, but vLLM steps the ranks of this model {steps}; "
            f"set group.kind to {'lockstep' if is_moe else 'independent'}"
        )
    _refuse_budget(vllm_config, settings)
    indexing.refuse(vllm_config, settings)
    own = group_size(parallel)
    if is_emulated and own != settings.config.group.ranks:
        here = " of its own here" if own != ranks else ""
        raise ConfigError(
            f"group.ranks is {settings.config.group.ranks}, but vLLM was asked for {own} ranks"
            f"{here}; set group.ranks to {own}"
        )


def refuse_backend(backend: str) -> None:
    """Refuse engines that are started by something that dpbal does not reach.

    Raises:
        ConfigError: With the way out.
    """
    if backend == "ray":
        raise ConfigError(
            "dpbal cannot balance engines that Ray starts; type --data-parallel-backend mp"
        )


def refuse_distance(local: int) -> None:
    """Refuse front ends without a rank on their host.

    Raises:
        ConfigError: With the way out.
    """
    if local == 0:
        raise ConfigError(
            "dpbal needs a rank beside the front ends, where it meets the others; "
            "type --data-parallel-size-local 1 or more"
        )


def _refuse_hosts(vllm_config: VllmConfig, settings: Settings) -> None:
    """Refuse ranks on several hosts where something of dpbal's reaches only one.

    Raises:
        ConfigError: With the way out.
    """
    parallel = vllm_config.parallel_config
    local, ranks = parallel.data_parallel_size_local, parallel.data_parallel_size
    if not settings.transport.reaches_hosts:
        raise ConfigError(
            f"transport {settings.config.transport['name']!r} as configured reaches the ranks of "
            f"one host, and {local} of {ranks} are on this one; start all of them here, or type "
            "transport=zmq with transport.hosts and transport.port, the same on all hosts"
        )
    processes, dispatchers = parallel._api_process_count, settings.config.group.dispatchers
    if processes > dispatchers:
        raise ConfigError(
            f"vLLM starts {processes} API servers here and group.dispatchers is {dispatchers}, "
            f"which is all that other hosts know of; type --api-server-count {dispatchers}, or "
            f"set group.dispatchers to {processes} on all hosts"
        )
    if settings.needs_events:
        raise ConfigError(
            "indexer 'kv_events' hears of the ranks of one host, and "
            f"{local} of {ranks} are on this one; type indexer=own_record or shared_record"
        )


def _refuse_hybrid(local: int, settings: Settings) -> None:
    """Refuse what needs more ranks than the host's own, where its front ends see only those.

    Raises:
        ConfigError: With the way out.
    """
    if settings.transport.reaches_hosts:
        raise ConfigError(
            "with hybrid load balancing the front ends of a host choose among its own ranks only; "
            "leave out transport.hosts, or --data-parallel-hybrid-lb"
        )
    if settings.budget.needs_vectors and settings.is_lockstep:
        raise ConfigError(
            f"budget {settings.config.budget['name']!r} needs the vectors of all ranks, and with "
            f"hybrid load balancing a host knows of its own {local}; "
            "type budget=fixed, interval or time_cap"
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
