"""The plug-in is inert unless asked for, and refuses what would go round it."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

import pytest

from dpbal.backends.vllm import plugin
from dpbal.backends.vllm.front_end.front_end import Decision, FrontEnd
from dpbal.backends.vllm.front_end.prefixes import Prompt
from dpbal.backends.vllm.settings import BARRIER, CONFIG, REPORTS, Settings
from dpbal.core import LoadTable
from dpbal.errors import ConfigError
from dpbal.modes import GroupKind
from dpbal.parts import build_dispatcher
from dpbal.sharedmem.segment import FOLDER
from tests.vllm.engine import vllm_config
from tests.vllm.place import own_segments
from tests.vllm.settings import Serve, config, write


def front_end(*size: int) -> Any:
    raise AssertionError("no client is made here")


def replaced() -> dict[str, Any]:
    """What the plug-in may put something else in the place of."""
    from vllm.config import SchedulerConfig
    from vllm.v1.engine import core_client
    from vllm.v1.engine.coordinator import DPCoordinator
    from vllm.v1.engine.core import DPEngineCoreProc
    from vllm.v1.engine.utils import CoreEngineActorManager, CoreEngineProcManager

    return {
        "step": DPEngineCoreProc._process_engine_step,
        "end of a step": DPEngineCoreProc._has_global_unfinished_reqs,
        "coordinator": DPCoordinator.__init__,
        "scheduler": SchedulerConfig.get_scheduler_cls,
        "start": CoreEngineProcManager.__init__,
        "shutdown": CoreEngineProcManager.shutdown,
        "ray": CoreEngineActorManager.__init__,
        "client": core_client.DPLBAsyncMPClient,
    }


def changed(before: dict[str, Any]) -> set[str]:
    return {name for name, thing in replaced().items() if thing is not before[name]}


@pytest.fixture
def undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts vLLM's own back after a test that installs the plug-in for good."""
    from vllm.config import SchedulerConfig
    from vllm.v1.engine import core_client
    from vllm.v1.engine.coordinator import DPCoordinator
    from vllm.v1.engine.core import DPEngineCoreProc
    from vllm.v1.engine.utils import CoreEngineActorManager, CoreEngineProcManager

    for owner, name in (
        (SchedulerConfig, "get_scheduler_cls"),
        (DPEngineCoreProc, "_process_engine_step"),
        (DPEngineCoreProc, "_has_global_unfinished_reqs"),
        (DPCoordinator, "__init__"),
        (CoreEngineProcManager, "__init__"),
        (CoreEngineProcManager, "shutdown"),
        (CoreEngineActorManager, "__init__"),
        (core_client, "DPLBAsyncMPClient"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))


def test_vllm_finds_the_plug_in() -> None:
    (found,) = importlib.metadata.entry_points(group="vllm.general_plugins", name="dpbal")
    assert found.load() is plugin.register


@pytest.mark.usefixtures("undone")
@pytest.mark.parametrize("value", [None, ""])
def test_without_a_config_vllm_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv(CONFIG, raising=False)
    else:
        monkeypatch.setenv(CONFIG, value)
    before = replaced()
    plugin.register()
    assert changed(before) == set()


@pytest.mark.usefixtures("undone")
def test_with_a_config_it_takes_its_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CONFIG, str(write(tmp_path / "config.yaml")))
    before = replaced()
    plugin.register()
    assert changed(before) == set(before)


def test_it_leaves_no_trace_however_it_ends() -> None:
    before = replaced()
    with plugin.installed(Settings(config()), front_end):
        assert changed(before) == set(before)
    assert changed(before) == set()
    with pytest.raises(KeyError), plugin.installed(Settings(config()), front_end):
        raise KeyError
    assert changed(before) == set()


def test_vllms_own_choice_is_left_to_vllms_own_client() -> None:
    before = replaced()
    settings = Settings(config(balancer={"name": "vllm_native"}))
    with plugin.installed(settings, front_end):
        assert changed(before) == set(before) - {"client"}


@pytest.mark.parametrize("version", ["0.31.9", "0.33.0", "1.0", "0.320.0"])
def test_a_vllm_that_it_does_not_know_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    before = replaced()
    monkeypatch.setattr("vllm.__version__", version)
    message = f"knows the inside of vLLM 0.32.x and this is {version}; .*unset DPBAL_CONFIG"
    with pytest.raises(ConfigError, match=message):
        plugin.install(Settings(config()), front_end)
    assert changed(before) == set()


@pytest.mark.usefixtures("undone")
@pytest.mark.parametrize("text", ["", "minimum_tokens", "- 1", "a: [", b"\xff\xfe\x00"])
def test_a_file_that_is_no_config_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | bytes
) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setenv(CONFIG, str(path))
    with pytest.raises(ConfigError) as caught:
        plugin.register()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.usefixtures("undone")
@pytest.mark.parametrize("name", ["nothing.yaml", "."])
def test_a_file_that_cannot_be_read_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    monkeypatch.setenv(CONFIG, str(path))
    with pytest.raises(ConfigError, match=f"^DPBAL_CONFIG={re.escape(str(path))} cannot be read"):
        plugin.register()


@pytest.mark.usefixtures("undone")
@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"balancer": {"name": "minimum_token"}}, "did you mean 'minimum_tokens'"),
        ({"signal": {"name": "holding_tokens", "weight": 1}}, "'weight'"),
        ({"transport": {"name": "local"}}, "exists in the simulator only"),
        ({"profile": {"fixed_s": -1.0}}, "fixed_s must not be negative"),
    ],
)
def test_a_mistake_in_a_config_is_named_before_engines_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv(CONFIG, str(write(tmp_path / "config.yaml", **nodes)))
    with pytest.raises(ConfigError, match=message):
        plugin.register()


def test_engines_that_ray_starts_are_refused() -> None:
    from vllm.v1.engine.utils import CoreEngineActorManager

    with (
        plugin.installed(Settings(config()), front_end),
        pytest.raises(ConfigError, match="--data-parallel-backend mp"),
    ):
        CoreEngineActorManager(*[None] * 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", GroupKind)
def test_what_the_processes_share_is_there_while_the_engines_are(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, kind: GroupKind
) -> None:
    import os

    serve(Settings(config(kind)), kind)
    shared = [os.environ[name] for name in (REPORTS, BARRIER)]
    assert (FOLDER / shared[0]).is_file()
    assert (kind is GroupKind.lockstep) == bool(shared[1] and (FOLDER / shared[1]).is_file())


def test_a_start_that_fails_leaves_nothing(serve: Serve) -> None:
    def fail(*_: Any, **__: Any) -> None:
        assert own_segments()
        raise OSError("no more processes")

    with pytest.raises(OSError, match="no more processes"):
        serve(Settings(config()), start=fail)
    assert own_segments() == set()


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_front_end_has_its_column(serve: Serve, processes: int) -> None:
    settings = Settings(config(dispatchers=2))
    serve(settings, _api_process_count=processes)
    for number in range(processes):
        made = plugin._front_end(settings, 2, number, processes)
        _, dispatched = made.dispatch("1", Prompt(10))
        assert dispatched.dispatcher == number
        made.close()


def test_a_front_end_notes_which_dispatcher_decided_what(serve: Serve) -> None:
    settings = Settings(config(dispatchers=2))
    serve(settings)
    table = LoadTable(2, 2)
    dispatchers = [build_dispatcher(settings.config, table, number) for number in range(2)]
    decisions: list[Decision] = []
    made = FrontEnd.connect(settings, dispatchers, decisions)
    for name in "abc":
        made.dispatch(name, Prompt(10))
    made.close()
    assert [(d.request_id, d.dispatcher) for d in decisions] == [("a", 0), ("b", 1), ("c", 0)]
    assert all(decision.took_ns > 0 for decision in decisions)


def test_installed_twice_it_starts_engines_once(
    monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    from vllm.v1.engine.utils import CoreEngineProcManager

    started = []
    monkeypatch.setattr(CoreEngineProcManager, "__init__", lambda *_, **__: started.append(1))
    with (
        plugin.installed(Settings(config(ranks=8)), front_end),
        plugin.installed(Settings(config(ranks=2)), front_end),
    ):
        start = CoreEngineProcManager.__init__.__wrapped__  # type: ignore[attr-defined]
        serve(Settings(config()), start=start)
    assert started == [1]


def test_a_scheduler_of_someone_elses_is_refused_unless_it_reports(model_folder: Path) -> None:
    from vllm.config import SchedulerConfig
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    from dpbal.backends.vllm.rank.scheduler import (
        Reporting,
        ReportingAsyncScheduler,
        ReportingScheduler,
    )

    class Foreign(Scheduler):
        pass

    class Ours(Reporting, Foreign):
        pass

    chosen: SchedulerConfig = vllm_config(model_folder).scheduler_config
    with plugin.installed(Settings(config()), front_end):
        assert chosen.get_scheduler_cls() is ReportingScheduler
        chosen.async_scheduling = True
        assert chosen.get_scheduler_cls() is ReportingAsyncScheduler
        chosen.scheduler_cls = Ours
        assert chosen.get_scheduler_cls() is Ours
        chosen.scheduler_cls = Foreign
        with pytest.raises(ConfigError, match=r"--scheduler-cls .*Foreign publishes no load repor"):
            chosen.get_scheduler_cls()
    assert chosen.get_scheduler_cls() is Foreign
    assert AsyncScheduler in ReportingAsyncScheduler.__mro__
