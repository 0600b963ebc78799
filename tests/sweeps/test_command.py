from __future__ import annotations

import csv
import fcntl
import json
import os
import runpy
import shutil
import signal
import sys
import time
from pathlib import Path

import polars
import pytest
from omegaconf import OmegaConf

from dpbal.composition import check_jobs
from dpbal.overrides import CONF
from dpbal.sweeps.jobs import expand
from tests.sweeps.commands import SMALL, SWEEP, results, run, start


@pytest.fixture(scope="session")
def ran_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small sweep has run."""
    folder = tmp_path_factory.mktemp("sweep")
    code, _, error = run(folder, *SWEEP)
    assert (code, error) == (0, "")
    return folder / "runs"


@pytest.fixture
def finished(ran_once: Path, tmp_path: Path) -> Path:
    """A folder of a test's own in which the small sweep has run."""
    return Path(shutil.copytree(ran_once, tmp_path / "runs"))


def test_a_sweep_leaves_one_row_a_run(finished: Path) -> None:
    with (finished / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["balancer"], row["seed"]) for row in rows} == {
        (balancer, seed) for balancer in ("round_robin", "least_prefill") for seed in "01"
    }
    for row in rows:
        result = json.loads((finished / row["run"] / "result.json").read_text())
        assert result["config"]["balancer"]["name"] == row["balancer"]
        assert float(row["ttft_s.mean"]) == result["ttft_s"]["mean"]
        assert int(row["requests.finished"]) == 50
        assert (row["transport"], row["workload"]) == ("local", "conv_like")
    assert {row["signal"] for row in rows} == {"requests_in_flight", "prefill_in_flight"}
    assert polars.read_parquet(finished / "runs.parquet").height == 4


def test_finished_runs_are_not_run_again(finished: Path) -> None:
    before = results(finished)
    code, out, _ = run(finished.parent, *SWEEP, "progress=false")
    assert code == 0
    assert "4 runs in runs, 4 there already, 0 to go" in out
    assert results(finished) == before


def test_more_values_run_what_is_new_only(finished: Path) -> None:
    before = results(finished)
    code, out, _ = run(finished.parent, *(w.replace("seed=0,1", "seed=0,1,2") for w in SWEEP))
    assert (code, "6 runs in runs, 4 there already, 2 to go" in out) == (0, True)
    after = results(finished)
    assert len(after) == 6
    assert {name: after[name] for name in before} == before


def test_a_changed_config_is_another_run_and_not_in_the_table(finished: Path) -> None:
    before = results(finished)
    words = [w.replace("requests=50", "requests=60") for w in SWEEP]
    _, out, _ = run(finished.parent, *words)
    assert "4 runs in runs\n4 other runs lie there too" in out
    after = results(finished)
    assert len(after) == 8
    assert {name: after[name] for name in before} == before
    rows = polars.read_csv(finished / "runs.csv")
    assert rows["workload.requests"].to_list() == [60] * 4


def test_a_result_of_another_config_or_version_is_run_again(finished: Path) -> None:
    changes = {0: {"seed": 9}, 1: {}}
    files = sorted(finished.glob("*/result.json"))
    for place, change in changes.items():
        result = json.loads(files[place].read_text())
        result["config"] |= change
        result["versions"]["dpbal"] = result["versions"]["dpbal"] if change else "0.0.1"
        files[place].write_text(json.dumps(result))
    before = results(finished)
    _, out, _ = run(finished.parent, *SWEEP)
    assert "2 there already, 2 to go" in out
    assert "1 of them: has the result of another config; they are run again" in out
    assert "1 of them: has the result of another version of dpbal; they are run again" in out
    after = results(finished)
    assert sorted(name for name in after if after[name] != before[name]) == sorted(
        files[place].parent.name for place in changes
    )


def test_a_result_that_cannot_be_read_is_one_line_and_run_again(finished: Path) -> None:
    victim = next(iter(finished.glob("*/result.json")))
    victim.write_text('{"config": {"balan')
    code, out, error = run(finished.parent, *SWEEP)
    assert code == 0
    (line,) = error.splitlines()
    assert line == f"dpbal-run: runs/{victim.parent.name}/result.json cannot be read; " + (
        "the run is done again"
    )
    assert "3 there already, 1 to go" in out
    assert json.loads(victim.read_text())["requests"]["finished"] == 50


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_killed_sweep_goes_on_without_losing_or_repeating_a_run(
    launcher: str, tmp_path: Path
) -> None:
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs dpbal[sweep]")
    words = [w.replace("seed=0,1", "seed=0,1,2") for w in SWEEP]
    words += [f"hydra/launcher={launcher}"]
    shared_memory = {file.name for file in Path("/dev/shm").glob("*")}
    process = start(tmp_path, *words)
    while len(results(tmp_path / "runs")) < 2 and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = results(tmp_path / "runs")
    assert 2 <= len(before) < 6
    code, out, error = run(tmp_path, *words)
    assert (code, error) == (0, "")
    assert f"6 runs in runs, {len(before)} there already, {6 - len(before)} to go" in out
    after = results(tmp_path / "runs")
    assert len(after) == 6
    assert {name: after[name] for name in before} == before
    assert polars.read_csv(tmp_path / "runs" / "runs.csv").height == 6
    left = {file.name for file in Path("/dev/shm").glob("*")} - shared_memory
    assert not [name for name in left if name.startswith(("joblib", "sem.loky"))]
    assert not (tmp_path / "runs" / ".joblib").exists()


def test_a_sweep_of_one_file_runs_without_m_and_may_be_changed_in_anything(tmp_path: Path) -> None:
    saved = tmp_path / "mine" / "sweep" / "own.yaml"
    saved.parent.mkdir(parents=True)
    saved.write_text(
        "# @package _global_\n"
        "hydra:\n  mode: MULTIRUN\n  sweep: {dir: multirun/own}\n"
        "  sweeper: {params: {balancer: 'random,vllm', seed: '0,1'}}\n"
        "compare: false\nworkload: {requests: 20}\n"
    )
    words = ("--config-dir", "mine", "sweep=own", "seed=5", "group.ranks=2")
    code, _, error = run(tmp_path, *words)
    assert (code, error) == (0, "")
    table = polars.read_csv(tmp_path / "multirun" / "own" / "runs.csv")
    assert sorted(table["balancer"]) == ["random", "vllm"]
    assert set(table["seed"]) == {5}
    assert set(table["requests.offered"]) == {20}


OWN = """
from dataclasses import dataclass
from dpbal.balancers import BALANCERS, RoundRobin
from dpbal.cli import main

@BALANCERS.register("own")
@dataclass
class Own(RoundRobin):
    pass

if __name__ == "__main__":
    main()
"""


def test_components_of_ones_own_reach_the_workers(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs dpbal[sweep]")
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "mine" / "balancer").mkdir(parents=True)
    (tmp_path / "mine" / "balancer" / "own.yaml").write_text("name: own\n")
    swept = ("balancer=own" if word.startswith("balancer=") else word for word in SWEEP)
    words = ("--config-dir", "mine", *swept, "hydra/launcher=joblib")
    with start(tmp_path, *words, program=("own.py",)) as process:
        _, error = process.communicate()
    assert (process.returncode, error) == (0, "")
    table = polars.read_csv(tmp_path / "runs" / "runs.csv")
    assert table["balancer"].to_list() == ["own", "own"]


@pytest.mark.parametrize(
    ("swept", "column", "shown"),
    [
        ("name=a,b", "name", ["a ", "b "]),
        ("compare=true,false", "compare", ["compare=True ", "compare=False "]),
        (
            "slo={ttft_s:1},{ttft_s:2}",
            "run",
            [f"compare=false,group.ranks=2,slo=_ttft_s_{n}_" for n in (1, 2)],
        ),
    ],
)
def test_what_is_no_choice_tells_runs_apart_too(
    swept: str, column: str, shown: list[str], tmp_path: Path
) -> None:
    words = [word for word in SMALL if not swept.startswith(word.partition("=")[0])]
    code, out, error = run(tmp_path, "-m", swept, "hydra.sweep.dir=runs", *words)
    assert (code, error) == (0, "")
    for label in shown:
        assert any(line.startswith(label) for line in out.splitlines())
    assert polars.read_csv(tmp_path / "runs" / "runs.csv")[column].n_unique() == 2


def test_the_table_can_be_made_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (finished / "runs.csv").read_text().splitlines()
    (finished / "runs.csv").unlink()
    monkeypatch.setattr(sys, "argv", ["table", str(finished)])
    monkeypatch.delitem(sys.modules, "dpbal.sweeps.table", raising=False)
    runpy.run_module("dpbal.sweeps.table", run_name="__main__")
    assert sorted((finished / "runs.csv").read_text().splitlines()) == sorted(before)


def test_two_sweeps_do_not_share_a_directory(finished: Path) -> None:
    with (finished / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, out, error = run(finished.parent, *SWEEP)
    assert (code, out) == (2, "")
    assert error.startswith("dpbal-run: another sweep runs in runs; wait for it")


def test_a_run_that_fails_is_left_out_and_tried_again(tmp_path: Path) -> None:
    words = ("-m", "backend.kv_capacity_tokens=16,null", "hydra.sweep.dir=runs", *SMALL)
    for _ in range(2):
        code, out, error = run(tmp_path, *words)
        assert code == 1
        assert "dpbal-run: backend.kv_capacity_tokens=16" in error
        assert "no request of the workload fits the KV cache" in error
        assert "1 of 2 runs failed; the same command with hydra.sweep.dir=runs tries" in out
        assert polars.read_csv(tmp_path / "runs" / "runs.csv").height == 1
    assert "1 there already, 1 to go" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep=transport"], "unknown sweep 'transport'; did you mean 'transports'?"),
        (["-m", "balancer=glob(x*)"], "balancer=glob(x*) matches nothing"),
        (["-m", "seed=range(0)"], "seed=range(0) matches nothing"),
        (["-m", "hydra.sweeper.samples=0"], "samples must be a whole number of at least 1, got 0"),
        (["-m", "workload.load=interval(0.1,0.5)"], "say how often: hydra.sweeper.samples=20"),
        (["workload.load=interval(0.1,0.5)"], "is a range to draw from: add -m"),
        (["-m", "hydra.sweep.subdir=here", "seed=0,1"], "hydra.sweep.subdir is the name of a job"),
        (["-m", "hydra.sweep.dir=a_file", "seed=0,1"], "hydra.sweep.dir=a_file cannot be written"),
        (
            ["-m", "hydra/launcher=submitit_slurm", "seed=0,1"],
            "hydra/launcher=submitit_slurm is not installed; type pip install "
            "hydra-submitit-launcher, or do without it: hydra/launcher=basic",
        ),
    ],
)
def test_a_mistake_in_a_sweep_is_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "a_file").touch()
    code, out, error = run(tmp_path, *words)
    assert code == 2
    (line,) = error.splitlines()
    assert line.startswith("dpbal-run: ")
    assert message in line
    assert out == ""


def saved_params(name: str) -> tuple[dict[str, str], int | None]:
    sweeper = OmegaConf.load(CONF / "sweep" / f"{name}.yaml").hydra.sweeper
    return dict(sweeper.params), sweeper.get("samples")


SAVED = sorted(file.stem for file in (CONF / "sweep").glob("*.yaml"))


@pytest.mark.parametrize("name", SAVED)
def test_every_saved_sweep_composes_in_all_its_values(name: str) -> None:
    params, _ = saved_params(name)
    configs = check_jobs([f"sweep={name}", "hydra/launcher=basic"], None, is_sweep=False)
    assert {config.balancer["name"] for config in configs} == set(params["balancer"].split(","))


@pytest.mark.parametrize(("name", "count"), [("transports", 200), ("loads", 300), ("random", 300)])
def test_saved_sweeps_are_as_large_as_they_say(name: str, count: int) -> None:
    params, samples = saved_params(name)
    assert len(expand(params, [], samples)) == count
    assert f"{count} runs" in (CONF / "sweep" / f"{name}.yaml").read_text()
