"""What happens around the start of a server's engines: checks, and what its processes share."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from vllm.logger import init_logger

from dpbal.backends.vllm.children import deaf_children
from dpbal.backends.vllm.combination import describe
from dpbal.backends.vllm.emulated import is_emulated_by
from dpbal.backends.vllm.front_end import indexing
from dpbal.backends.vllm.hosts import group_size
from dpbal.backends.vllm.metrics.telemetry import Telemetry
from dpbal.backends.vllm.refusals import refuse, refuse_backend, refuse_distance
from dpbal.backends.vllm.settings import BARRIER, REPORTS, TELEMETRY, Settings

if TYPE_CHECKING:
    from dpbal.backends.vllm.front_end.indexing import Shared

LOG = init_logger(f"vllm.{__name__}")  # vLLM shows what is below its own name

Method = Callable[..., Any]


def coordinating(start: Method) -> Method:
    """A start of the coordinator that forks it where the engines will be forked.

    It comes before that of the engines, and also where there are none to start.
    """

    @wraps(start)
    def start_coordinator(self: Any, parallel_config: Any, *args: Any, **kwargs: Any) -> None:
        refuse_distance(parallel_config.data_parallel_size_local)
        if is_emulated_by(parallel_config.distributed_executor_backend):
            _fork_from_now_on()
        start(self, parallel_config, *args, **kwargs)

    return start_coordinator


def starting(start: Method, settings: Settings) -> Method:
    """A start of engines that first checks that nothing will bypass dpbal.

    Where the load reports meet, and what the ranks of an emulated lockstep group wait at, are made
    here, by the process that starts the engines of a node, and removed when it stops them.
    """

    @wraps(start)
    def start_engines(self: Any, *args: Any, **kwargs: Any) -> None:
        vllm_config = kwargs["vllm_config"]
        is_emulated = is_emulated_by(kwargs["executor_class"])
        refuse(vllm_config, settings, is_emulated)
        parallel = vllm_config.parallel_config
        ranks = group_size(parallel)
        dispatchers = settings.dispatchers(parallel._api_process_count)
        shared: dict[str, Shared] = {}
        self.dpbal_shared = shared
        try:
            shared[REPORTS] = settings.transport.create(ranks, dispatchers)
            shared.update(indexing.share(vllm_config, settings))
            os.environ.pop(TELEMETRY, None)  # of an earlier server in this process
            if kwargs.get("log_stats") and not settings.is_native:
                shared[TELEMETRY] = Telemetry.create(parallel.data_parallel_size)
            if is_emulated:
                vllm_config.scheduler_config.async_scheduling = settings.async_scheduling
                _fork_from_now_on()
                if settings.is_lockstep:
                    from dpbal.backends.vllm.emulated.barrier import Barrier

                    shared[BARRIER] = Barrier.create(ranks)
            os.environ.update({name: place.address for name, place in shared.items()})
            LOG.info("dpbal: %s", describe(settings, ranks))
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
        refuse_backend("ray")

    return refuse_to_start


def _fork_from_now_on() -> None:
    # vLLM's own default, which its CPU platform overrides for the sake of its workers: without
    # them, processes start at once from the modules that are loaded here
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    deaf_children()


def _remove(manager: Any) -> None:
    shared: dict[str, Shared] = getattr(manager, "dpbal_shared", {})
    for place in shared.values():
        place.close()
