"""W&B without a server and without an account: what was told to it is read back from its record."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dpbal
from dpbal.tracking.outcome import flat
from tests.tracking.offline import OfflineRun, read

pytest.importorskip("wandb")

OFFLINE = ["experiment=smoke", "balancer=minimum_tokens", "tracker=wandb", "tracker.mode=offline"]
MISSING = "tracker=wandb needs the extra: pip install 'dpbal[wandb]'"
FAILS = "backend.kv_capacity_tokens=16"  # no request fits, so no load can be set


@pytest.fixture(autouse=True)
def no_account(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep W&B away from what this machine's user has set, and from the user's folders."""
    for name in [key for key in os.environ if key.startswith(("WANDB_", "HYDRA_"))]:
        monkeypatch.delenv(name)
    own = tmp_path_factory.mktemp("wandb")
    monkeypatch.setenv("NETRC", str(own / "netrc"))
    for kind in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{kind}_DIR", str(own / kind))


def tracked(folder: Path, *overrides: str) -> tuple[dict[str, Any], OfflineRun]:
    result = dpbal.run(dpbal.compose(*OFFLINE, *overrides), folder)
    return result, read(folder)


def command(
    folder: Path, *words: str, before: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command line, with W&B's own variables as given."""
    return subprocess.run(
        [sys.executable, "-c", f"{before}\nfrom dpbal.cli import main; main()", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "500"} | environment,
        stdin=subprocess.DEVNULL,
    )


def test_the_record_says_what_the_run_was(tmp_path: Path) -> None:
    _, record = tracked(tmp_path, "seed=7", "name=study", "tracker.tags=[mine]")
    assert record.run.display_name == "minimum_tokens/sum/local/fixed seed 7"
    assert (record.run.project, record.run.run_group) == ("dpbal", "study")
    assert record.run.job_type == "minimum_tokens"
    assert set(record.run.tags) == {"synthetic", "simulator", "mine"}
    assert record.config["seed"] == 7
    assert record.config["group"] == {"kind": "lockstep", "ranks": 2, "dispatchers": 1}
    assert record.config["versions"]["dpbal"] == dpbal.__version__
    assert record.exit_code == 0


def test_the_record_has_every_number_of_the_result(tmp_path: Path) -> None:
    result, record = tracked(tmp_path)
    told = {k: v for k, v in result.items() if k not in ("config", "seed", "versions")}
    numbers = flat(told)
    assert len(numbers) > 90
    assert {key: record.summary[key] for key in numbers} == pytest.approx(numbers)


def test_the_record_has_windows_over_simulated_time(tmp_path: Path) -> None:
    result, record = tracked(tmp_path)
    windows = [entry for entry in record.history if "windows/time_s" in entry]
    time_s = [window["windows/time_s"] for window in windows]
    assert len(windows) == 100
    assert np.diff(time_s) == pytest.approx(result["duration_s"] / 100)
    for name in ("straggler_share", "queue_requests", "in_flight_requests"):
        assert any(window.get(f"windows/{name}", 0) > 0 for window in windows), name
    for rank in range(2):
        for load in ("requests", "kv_used_tokens"):
            assert max(window[f"windows/load/rank_{rank}/{load}"] for window in windows) > 0
    assert not any(key.startswith("windows/") for key in record.summary)


def test_the_record_has_tables_and_figures(tmp_path: Path) -> None:
    result, record = tracked(tmp_path)
    comparison = record.tables["tables/comparison"]
    rows = {row[0]: row[1:] for row in comparison["data"]}
    assert comparison["columns"][1:4] == ["minimum_tokens", "round robin", "pooled"]
    assert rows["e2e_s/p99"][2] == pytest.approx(result["pooled"]["e2e_s"]["p99"])
    assert sum(row[1] for row in record.tables["tables/ranks"]["data"]) == 200
    for figure in ("ttft", "e2e", "kv_used"):
        table = record.tables[f"Custom Chart Tables/figures/{figure}_table"]
        assert len({row[1] for row in table["data"]}) == 3  # lines


def test_a_failed_experiment_is_marked_failed(tmp_path: Path) -> None:
    with pytest.raises(dpbal.WorkloadError):
        tracked(tmp_path, FAILS)
    record = read(tmp_path)
    assert record.exit_code == 1
    assert record.summary["error"].startswith("WorkloadError: no request of the workload fits")


def test_the_record_may_go_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "records"
    dpbal.run(dpbal.compose(*OFFLINE, f"tracker.directory={folder}"), tmp_path / "run")
    assert read(folder).exit_code == 0
    assert not (tmp_path / "run" / "wandb").exists()


def test_a_wandb_run_of_the_users_own_is_left_alone(tmp_path: Path) -> None:
    import wandb

    with wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True)) as own:
        _, record = tracked(tmp_path / "run")
        assert record.run.run_id != own.id
        own.log({"mine": 1})
    assert "mine" not in record.summary


def test_a_sweep_shares_a_group_and_marks_the_job_that_failed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done = command(
            tmp_path,
            *["-m", "experiment=smoke", "balancer=minimum_tokens", "transport=gather_40"],
            *["tracker=wandb", "backend.kv_capacity_tokens=null,16", "hydra.sweep.dir=sweeps/one"],
            WANDB_MODE="offline",
            WANDB_BASE_URL=f"http://127.0.0.1:{server.getsockname()[1]}",
        )
        with pytest.raises(TimeoutError):  # nobody has called
            server.accept()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    jobs = [folder.parent for folder in (tmp_path / "sweeps" / "one").glob("*/wandb")]
    assert len(jobs) == 2
    ended = {job: (job / "result.json").exists() for job in jobs}
    for job, record in {job: read(job) for job in jobs}.items():
        assert record.exit_code == (0 if ended[job] else 1)
        assert record.run.display_name == "minimum_tokens/holding_in_flight/gather_40/fixed seed 0"
        assert (record.run.run_group, record.run.job_type) == ("sweeps/one", "minimum_tokens")
        assert set(record.run.tags) == {"conv_like", "simulator"}
    assert sorted(ended.values()) == [False, True]


def test_without_an_account_the_record_stays_on_this_machine(tmp_path: Path) -> None:
    done = command(tmp_path, "experiment=smoke", "tracker=wandb")
    assert done.returncode == 0, done.stderr
    assert "tracked offline; to send it: wandb sync outputs" in done.stdout
    assert read(tmp_path).exit_code == 0


def test_online_without_an_account_is_a_mistake(tmp_path: Path) -> None:
    done = command(tmp_path, "experiment=smoke", "tracker=wandb", "tracker.mode=online")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line == (
        "dpbal-run: tracker.mode=online needs an API key; type wandb login, or tracker.mode=offline"
    )
    assert not (tmp_path / "outputs").exists()


def test_a_mode_that_wandb_does_not_know_is_a_mistake(tmp_path: Path) -> None:
    done = command(tmp_path, "experiment=smoke", "tracker=wandb", WANDB_MODE="ofline")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "mode Input should be 'online', 'offline'" in line
    with pytest.raises(dpbal.ConfigError, match=r"'ofline'.*online, offline, disabled"):
        dpbal.compose("tracker=wandb", "tracker.mode=ofline")


@pytest.mark.slow
def test_a_server_that_does_not_answer_costs_a_warning(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = command(
        tmp_path,
        *["experiment=smoke", "tracker=wandb"],
        before="import dpbal.tracking.wandb; dpbal.tracking.wandb.PATIENCE_S = 2.0",
        WANDB_API_KEY="0" * 40,
        WANDB_BASE_URL=f"http://127.0.0.1:{port}",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tracker=wandb failed and is left out") == 1
    assert len(list(tmp_path.glob("outputs/*/*/result.json"))) == 1


@pytest.mark.parametrize("words", [[], ["-m", "seed=1,2"]])
def test_without_the_extra_one_line_says_what_to_install(words: list[str], tmp_path: Path) -> None:
    before = "import sys; sys.modules['wandb'] = None"
    done = command(tmp_path, "experiment=smoke", "tracker=wandb", *words, before=before)
    assert (done.returncode, done.stderr) == (2, f"dpbal-run: {MISSING}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("found", [None, types.ModuleType("wandb")])  # the latter a mere folder
def test_a_script_without_the_extra_is_told_before_anything_runs(
    found: types.ModuleType | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dpbal.compose(*OFFLINE)
    monkeypatch.setitem(sys.modules, "wandb", found)
    with pytest.raises(dpbal.MissingExtraError) as caught:
        dpbal.run(config, tmp_path / "run")
    assert str(caught.value) == MISSING
    assert list(tmp_path.iterdir()) == []


def test_a_config_can_be_shown_without_the_extra(tmp_path: Path) -> None:
    before = "import sys; sys.modules['wandb'] = None"
    done = command(tmp_path, "--cfg", "job", "tracker=wandb", before=before)
    assert (done.returncode, done.stderr) == (0, "")
    assert "project: dpbal" in done.stdout
