"""The entry point that vLLM calls in each of its processes; it does nothing unless asked to."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import unwrap
from typing import TYPE_CHECKING, Any

from dpbal.backends.vllm.children import mortal_children
from dpbal.backends.vllm.settings import CONFIG, REPORTS, Settings
from dpbal.errors import ConfigError

if TYPE_CHECKING:
    from dpbal.backends.vllm.front_end.client import FrontEndFactory
    from dpbal.backends.vllm.front_end.front_end import FrontEnd

SUPPORTED = ("0.32.",)
"""Versions of vLLM that the plug-in knows, by how they begin."""

SERVE = "vllm.entrypoints.cli.serve"
"""The module of ``vllm serve``."""

LAUNCHER = "vllm.entrypoints.launchers.launcher"
"""The module of its HTTP server."""


def register() -> None:
    """Let dpbal balance this process's part of a vLLM server, if ``DPBAL_CONFIG`` says how.

    Raises:
        ConfigError: If the config has a mistake, or this vLLM is not one that dpbal knows.
    """
    if not os.environ.get(CONFIG):
        return
    settings = Settings.from_environment()
    if not os.environ.get(REPORTS):
        # whoever started this process has done it otherwise, and it loads numba, beside which
        # the workers of vLLM's CPU backend cannot start: they stumble over llvmlite
        settings.check()
    install(settings, lambda *size: _front_end(settings, *size))
    _end_with_engines()
    _answer_health(settings)


@contextmanager
def installed(settings: Settings, make_front_end: FrontEndFactory) -> Iterator[None]:
    """The plug-in for as long as the context lasts; afterwards vLLM is what it was.

    Engines that are forked meanwhile do not outlive this process.
    """
    undo = install(settings, make_front_end)
    try:
        with mortal_children():
            yield
    finally:
        for restore in reversed(undo):
            restore()


def install(settings: Settings, make_front_end: FrontEndFactory) -> list[Callable[[], None]]:
    """Put dpbal's client, schedulers and checks in place of vLLM's in this process.

    Args:
        settings: What to do.
        make_front_end: Makes the dpbal half of this process's front end.

    Returns:
        What puts vLLM's own back.

    Raises:
        ConfigError: If this vLLM is not one that dpbal knows.
    """
    check_version()
    from vllm.config import SchedulerConfig
    from vllm.v1.engine import core_client
    from vllm.v1.engine.coordinator import DPCoordinator
    from vllm.v1.engine.core import DPEngineCoreProc
    from vllm.v1.engine.utils import CoreEngineActorManager, CoreEngineProcManager

    from dpbal.backends.vllm.launch import coordinating, refusing_ray, shutting_down, starting
    from dpbal.backends.vllm.rank.paced import telling_steps
    from dpbal.backends.vllm.rank.scheduler import reporting
    from dpbal.backends.vllm.rank.waves import meeting

    places: list[tuple[Any, str, Callable[[Any], Any]]] = [
        (SchedulerConfig, "get_scheduler_cls", reporting),
        (DPEngineCoreProc, "_process_engine_step", telling_steps),
        (DPEngineCoreProc, "_has_global_unfinished_reqs", meeting),
        (DPCoordinator, "__init__", coordinating),
        (CoreEngineProcManager, "__init__", lambda start: starting(start, settings)),
        (CoreEngineProcManager, "shutdown", shutting_down),
        (CoreEngineActorManager, "__init__", refusing_ray),
    ]
    if not settings.is_native:
        from dpbal.backends.vllm.front_end.client import balanced_client

        places.append(
            (core_client, "DPLBAsyncMPClient", lambda _: balanced_client(make_front_end, settings))
        )
    return [_replace(*place) for place in places]


def _end_with_engines() -> None:
    """Have a server whose engine died say so, to its clients, in its log and by its status."""
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.utils import CoreEngineProcManager

    from dpbal.backends.vllm.serve.deaths import failing, failing_requests, finding_others, watching
    from dpbal.backends.vllm.serve.drain import draining, refusing

    deaths: list[str] = []  # of engines that this process has started
    _replace(CoreEngineProcManager, "monitor_engine_liveness", lambda own: watching(own, deaths))
    _replace(AsyncLLM, "shutdown", lambda own: failing_requests(draining(own)))
    _replace(AsyncLLM, "check_admission", refusing)
    # else this is no process that has them, and they need not be loaded for it
    if LAUNCHER in sys.modules:
        _replace(sys.modules[LAUNCHER], "find_process_using_port", finding_others)
    if SERVE in sys.modules:
        command = sys.modules[SERVE].ServeSubcommand
        _replace(command, "cmd", lambda own: failing(own, deaths))


def _answer_health(settings: Settings) -> None:
    """Have a server answer how its ranks are."""
    from vllm import plugins

    from dpbal.backends.vllm.serve.endpoints import adding_health

    _replace(plugins, "load_endpoint_plugins", lambda own: adding_health(own, settings))


def _replace(owner: Any, name: str, change: Callable[[Any], Any]) -> Callable[[], None]:
    # vLLM may load its plug-ins more than once; the last installation takes the place of the others
    changed = change(unwrap(getattr(owner, name)))
    if name in vars(owner):
        before = vars(owner)[name]  # a static method as such
        undo = lambda: setattr(owner, name, before)  # noqa: E731
    else:
        undo = lambda: delattr(owner, name)  # noqa: E731
    setattr(owner, name, changed)
    return undo


def check_version() -> None:
    """Refuse a vLLM whose inside dpbal does not know.

    Raises:
        ConfigError: With those that it does.
    """
    import vllm

    version = vllm.__version__
    if not version.startswith(SUPPORTED):
        allowed = ", ".join(f"{prefix}x" for prefix in SUPPORTED)
        raise ConfigError(
            f"dpbal knows the inside of vLLM {allowed} and this is {version}; "
            f"install one of those, or unset {CONFIG} to serve without dpbal"
        )


def _front_end(settings: Settings, ranks: int, number: int, count: int) -> FrontEnd:
    """The front end of one process of a server."""
    from dpbal.backends.vllm.front_end import indexing
    from dpbal.backends.vllm.serve.logged import LoggedFrontEnd
    from dpbal.core import LoadTable
    from dpbal.parts import build_dispatcher

    table = LoadTable(ranks, settings.dispatchers(count))
    indexer = indexing.start(settings, ranks, number, count)
    epoch = time.time_ns()
    dispatcher = build_dispatcher(settings.config, table, number, epoch, indexer)
    return LoggedFrontEnd.connect(settings, [dispatcher])
