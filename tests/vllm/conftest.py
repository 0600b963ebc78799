"""What the tests of the vLLM plug-in need, and a look at what they leave behind."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from dpbal.backends.vllm.emulated import model
from dpbal.backends.vllm.settings import (
    BARRIER,
    CONFIG,
    DISPATCHES,
    EVENTS,
    REPORTS,
    Settings,
)
from dpbal.modes import GroupKind
from dpbal.sharedmem.segment import FOLDER
from tests.vllm.engine import Engine, MakeEngine, vllm_config
from tests.vllm.place import Place, own_segments
from tests.vllm.reports import Watched
from tests.vllm.settings import Serve, write

MODEL_LENGTH = 512


@pytest.fixture(scope="session", autouse=True)
def _vllm() -> None:
    """Skip what needs vLLM where there is none; its import warns of much that is not ours."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from vllm import LLM  # noqa: F401
    except Exception as error:
        pytest.skip(f"vLLM cannot be imported: {error}")


@pytest.fixture(scope="session", autouse=True)
def _leaves_nothing() -> Iterator[None]:
    """No shared memory of this process or of one that is dead, and no engine without a parent."""
    before = _left()
    yield
    assert _left() <= before


def _left() -> set[str]:
    segments = {path.name: int(path.name.split("-")[3]) for path in FOLDER.glob("dpbal-*")}
    left = {
        name for name, pid in segments.items() if pid == os.getpid() or not psutil.pid_exists(pid)
    }
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.ppid() == 1 and any("EngineCore" in word for word in process.cmdline()):
                left.add(f"engine {process.pid}")
    return left


@pytest.fixture
def place() -> Iterator[Place]:
    """Where commands may run."""
    made = Place()
    yield made
    made.close()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense model without weights."""
    return model.write(tmp_path_factory.mktemp("model") / "dense", False, MODEL_LENGTH)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Load reports, with everything that a scheduler needs to publish them."""
    made = Watched(dispatchers=3)
    monkeypatch.setenv(CONFIG, str(write(tmp_path / "config.yaml")))
    monkeypatch.setenv(REPORTS, made.exchange.address)
    yield made
    made.close()


@pytest.fixture
def make_engine(model_folder: Path, watched: Watched, tmp_path: Path) -> Iterator[MakeEngine]:
    """Makes an engine; see ``vllm_config`` and ``Engine``."""
    made: list[Engine] = []

    def make(
        *,
        is_async: bool = False,
        policy: str = "fcfs",
        speculates: bool = False,
        kv_blocks: int = 64,
        seed: int = 0,
        budget: dict[str, Any] | None = None,
        has_events: bool = False,
    ) -> Engine:
        config = vllm_config(model_folder, is_async=is_async, policy=policy, speculates=speculates)
        if budget is not None:  # as rank 0 of a lockstep group of two
            write(tmp_path / "config.yaml", kind=GroupKind.lockstep, budget=budget)
            config.parallel_config.data_parallel_size = 2
        if has_events:
            from vllm.config import KVEventsConfig

            config.kv_events_config = KVEventsConfig(enable_kv_cache_events=True, publisher="null")
        made.append(Engine(config, kv_blocks, seed))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[GroupKind, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        kind: model.write(folder / kind.name, kind is GroupKind.lockstep, 512) for kind in GroupKind
    }


@pytest.fixture
def serve(
    model_folders: dict[GroupKind, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Serve]:
    """Starts no engines, but does what comes before: what would be handed to them."""
    from dpbal.backends.vllm.emulated.executor import EmulatedExecutor
    from dpbal.backends.vllm.launch import shutting_down, starting

    for name in (REPORTS, BARRIER, EVENTS, DISPATCHES):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("VLLM_RPC_BASE_PATH", str(tmp_path))
    made: list[Any] = []

    def start(
        settings: Settings,
        served: GroupKind = GroupKind.independent,
        start: Callable[..., None] = lambda *_, **__: None,
        executor: type = EmulatedExecutor,
        scheduler: dict[str, Any] | None = None,
        model_config: dict[str, Any] | None = None,
        cache: dict[str, Any] | None = None,
        **parallel: Any,
    ) -> Any:
        server = vllm_config(model_folders[served])
        wanted = {"data_parallel_size": 2, "data_parallel_size_local": 2, **parallel}
        for name, value in wanted.items():
            setattr(server.parallel_config, name, value)
        for name, value in (scheduler or {}).items():
            setattr(server.scheduler_config, name, value)
        for name, value in (model_config or {}).items():
            setattr(server.model_config, name, value)
        for name, value in (cache or {}).items():
            setattr(server.cache_config, name, value)
        manager = SimpleNamespace()
        made.append(manager)
        starting(start, settings)(manager, vllm_config=server, executor_class=executor)
        return server

    yield start
    for manager in made:
        shutting_down(lambda _: None)(manager)
    assert own_segments() == set()
    assert list(tmp_path.glob("dpbal-*")) == []
