from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import hydra
import pytest

import dpbal
from dpbal.cli import prepare
from dpbal.errors import ConfigError
from dpbal.overrides import CONF

ROOT = Path(__file__).parents[2]

STAND_IN = """
import sys, types
from dpbal.errors import DpbalError

def run(config, directory, show):
    assert directory.is_dir()
    print("ran", config.balancer["name"], config.seed)
    if config.seed == 1:
        raise DpbalError("the trace is empty")
    if config.seed == 2:
        raise RuntimeError("a bug")
    if config.seed == 3:
        raise KeyboardInterrupt
    if config.seed == 4:
        raise MemoryError

sys.modules["dpbal.experiment"] = types.SimpleNamespace(run=run)
from dpbal.cli import main
main()
"""
"""The command with an experiment that does nothing but end in the ways an experiment can end."""


def command(folder: Path, *words: str, code: str = "") -> subprocess.CompletedProcess[str]:
    start = ["-c", code] if code else ["-c", "from dpbal.cli import main; main()"]
    environment = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
    return subprocess.run(
        [sys.executable, *start, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def test_the_config_is_shown_in_any_directory(tmp_path: Path) -> None:
    done = command(tmp_path, "--cfg", "job", "+balancer=minimum_tokens")
    assert done.returncode == 0, done.stderr
    assert "name: minimum_tokens" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    done = command(tmp_path, "+blancer=random")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("dpbal-run: +blancer=random: unknown key 'blancer'; did you mean 'balan")


def test_a_run_has_a_directory_of_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        done = command(tmp_path, "+balancer=random", code=STAND_IN)
        assert (done.returncode, done.stdout.split()) == (0, ["ran", "random", "0"]), done.stderr
    assert len(list(tmp_path.glob("outputs/*/*/.hydra/config.yaml"))) == 2


def test_a_run_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    done = command(tmp_path, "seed=1", code=STAND_IN)
    assert done.returncode == 1
    assert done.stderr == "dpbal-run: the trace is empty\n"


def test_a_job_that_fails_does_not_end_its_sweep(tmp_path: Path) -> None:
    done = command(tmp_path, "-m", "+balancer=random,round_robin", "seed=0,1,5", code=STAND_IN)
    assert done.returncode == 1
    assert done.stdout.count("ran ") == 6
    assert "dpbal-run: balancer=random seed=1: the trace is empty\n" in done.stderr
    assert "dpbal-run: balancer=round_robin seed=1: the trace is empty\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list(tmp_path.glob("multirun/*/*/balancer=*,seed=?"))) == 6


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    done = command(tmp_path, "seed=2", code=STAND_IN)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RuntimeError: a bug" in done.stderr


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    done = command(tmp_path, "seed=3", code=STAND_IN)
    assert (done.returncode, done.stderr) == (130, "dpbal-run: interrupted\n")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_directory_that_cannot_be_made_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = command(tmp_path, f"hydra.run.dir={place}", code=STAND_IN)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"dpbal-run: cannot use {place}: ")
    assert "hydra.run.dir=DIR" in line


def test_a_run_that_does_not_fit_in_memory_says_what_to_make_smaller(tmp_path: Path) -> None:
    done = command(tmp_path, "seed=4", code=STAND_IN)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("dpbal-run: not enough memory for this run; try a smaller group.ranks")


def test_a_config_that_is_not_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine" / "balancer").mkdir(parents=True)
    (tmp_path / "mine" / "balancer" / "own.yaml").write_text("name: random\nfoo: [1\nbar: 2\n")
    done = command(tmp_path, "--config-dir", "mine", "balancer=own")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "own.yaml, line 3: not YAML: expected ',' or ']'" in line


def test_the_version_is_that_of_dpbal_and_of_hydra(tmp_path: Path) -> None:
    done = command(tmp_path, "--version")
    assert done.returncode == 0
    assert done.stdout == f"dpbal {dpbal.__version__}, Hydra {hydra.__version__}\n"


@pytest.mark.parametrize("typed", ["balancer=", "+balancer="])
def test_tab_completion_offers_the_balancers(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"dpbal-run {typed}mini"
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    done = command(tmp_path, "-sc", "query=bash")
    assert f"{typed}minimum_tokens" in done.stdout.split()
    assert all(offer.startswith(f"{typed}mini") for offer in done.stdout.split())


def test_help_lists_groups_and_choices(tmp_path: Path) -> None:
    done = command(tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    assert "minimum_tokens" in done.stdout
    assert "workload: " in done.stdout


@pytest.mark.parametrize(
    "argv",
    [
        ["-m", "+balancer=random,vllm", "seed=1"],
        ["+balancer=random,vllm", "-m", "seed=1"],
        ["+balancer=random,vllm", "seed=1", "-m"],
    ],
)
def test_a_flag_may_stand_anywhere(argv: list[str]) -> None:
    assert prepare(argv) == ["-m", "balancer=random,vllm", "seed=1"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-m", "--cfg", "job"], "--multirun and --cfg exclude each other"),
        (["--resolve"], "--resolve goes with --cfg"),
        (["--config-dir", "absent"], "--config-dir absent: there is no such folder"),
    ],
)
def test_flags_that_do_not_fit_are_mistakes(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(argv)


def test_a_folder_of_ones_own_works_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "mine" / "balancer").mkdir(parents=True)
    (tmp_path / "mine" / "balancer" / "own.yaml").write_text("name: random\n")
    done = command(tmp_path, "--config-dir", "mine", "+balancer=own", code=STAND_IN)
    assert (done.returncode, done.stdout.split()) == (0, ["ran", "random", "0"]), done.stderr


def test_the_wheel_carries_the_configs_where_the_package_looks_for_them() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["force-include"] == {"conf": "dpbal/conf"}
    assert (CONF / "config.yaml").is_file()
    assert CONF.parent in (ROOT, ROOT / "dpbal")
