from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import polars
import pytest

import dpbal
from dpbal.cli import prepare
from dpbal.overrides import CONF
from tests.docs.pages import PAGES, commands


def run_python(folder: Path, *words: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that the page shows, under the name that stands before it."""
    folder = tmp_path_factory.mktemp("extended")
    page = PAGES["docs/extend.md"]
    for block in re.finditer(r"^```(?:python|yaml|csv)\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        names = re.findall(r"^`([\w/]+\.(?:py|yaml|csv))`", page[: block.start()], re.MULTILINE)
        path = folder / names[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block[1])
    run = folder / "run.py"
    others = sorted(path.stem for path in folder.glob("*.py") if path != run)
    run.write_text(f"import {', '.join(others)}\n{run.read_text()}")
    (folder / "mine" / "balancer" / "my_own.yaml").write_text("name: random\n")
    return folder


@pytest.mark.parametrize(("page", "words"), commands("dpbal-run "))
def test_commands_on_the_pages_exist(
    page: str, words: str, extended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(extended)
    assert prepare(shlex.split(words, comments=True))


@pytest.mark.parametrize(("page", "words"), commands("python run.py "))
def test_components_of_ones_own_run_from_a_script(page: str, words: str, extended: Path) -> None:
    small = ["workload.requests=60", "group.ranks=2", "compare=false"]
    printed = run_python(extended, "run.py", *shlex.split(words, comments=True), *small)
    if " -m " in words:
        assert "3 of them run" in printed
        return
    for family in ("balancer", "transport", "budget"):
        chosen = re.search(rf"{family}=(\w+)", words)
        assert chosen is None or f"{chosen[1]} + " in printed


def test_the_sticky_balancer_keeps_sessions_together(extended: Path) -> None:
    script = """
import sticky
from dpbal import SIGNALS, Dispatcher, Ledger, LoadTable, Request, StepTime

balancer = sticky.Sticky(slack=1.0)
balancer.start(ranks=3, seed=0)
signal = SIGNALS.build("sum", {"terms": {"requests": 1.0, "in_flight": 1.0}})
dispatcher = Dispatcher(balancer, signal, Ledger(ranks=3), LoadTable(ranks=3), StepTime())
for i, session in enumerate("aaabb"):
    request = Request(i, 0.0, prompt_tokens=10, max_tokens=1, session=session)
    print(dispatcher.dispatch(request, now=0.0).rank)
"""
    assert run_python(extended, "-c", script).split() == ["0", "0", "1", "2", "2"]


def test_the_queue_length_is_what_waits_and_a_sum_adds_what_is_in_flight(extended: Path) -> None:
    script = """
import queue_length
from dpbal import SIGNALS, Dispatcher, Ledger, LoadTable, Request, StepTime
from dpbal.balancers import LeastLoad

table = LoadTable(ranks=3)
table.reports["waiting"], table.reports["running"] = [2, 1, 2], [0, 50, 0]
signal = SIGNALS.build("sum", {"terms": {"queue_length": 1.0, "in_flight": 1.0}})
balancer = LeastLoad()
balancer.start(ranks=3, seed=0)
dispatcher = Dispatcher(balancer, signal, Ledger(ranks=3), table, StepTime())
print(dispatcher.dispatch(Request(0, 0.0, prompt_tokens=10), now=0.0).rank)
print(*dispatcher.view.loads)
"""
    assert run_python(extended, "-c", script).split() == ["1", "2.0", "2.0", "2.0"]


RUN = """
import sys
from pathlib import Path

import even, gateway_log, scraped
import dpbal

*words, directory = sys.argv[1:]
dpbal.run(dpbal.compose(*words, config_dir="mine"), Path(directory))
"""


def test_what_is_scraped_too_seldom_is_never_seen(extended: Path, tmp_path: Path) -> None:
    words = ["balancer=minimum_tokens", "signal=holding_tokens", "ledger.mode=overwrite"]
    words += ["group.ranks=4", "workload.requests=200", "compare=false", "transport=scraped"]

    def ranks(every_s: float) -> list[int]:
        directory = tmp_path / f"{every_s:g}"
        run_python(extended, "-c", RUN, *words, f"transport.every_s={every_s}", str(directory))
        chosen: list[int] = polars.read_parquet(directory / "requests.parquet")["rank"].to_list()
        return chosen

    never, often = ranks(1e6), ranks(0.1)
    assert all((rank + 1) % 4 == following for rank, following in pairwise(never))  # all look alike
    assert often != never


def test_the_even_budget_makes_ranks_wait_less_for_each_other(
    extended: Path, tmp_path: Path
) -> None:
    words = ["balancer=least_prefill", "budget=even", "workload.requests=500"]
    run_python(extended, "-c", RUN, *words, str(tmp_path))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["straggler_share"] < 0.9 * result["baseline"]["straggler_share"]
    assert result["e2e_s"]["mean"] < 0.9 * result["baseline"]["e2e_s"]["mean"]


def test_the_even_budget_allows_the_mean_and_never_less_than_its_floor(extended: Path) -> None:
    script = """
import numpy as np
import even
from dpbal import StepTime
from dpbal.core import VECTOR

budget = even.Even(floor_s=0.02)
budget.start(4, StepTime(), 8192)
vectors = np.zeros(4, VECTOR)
for queued in ([0.3, 0.0, 0.0, 0.1], [0.01, 0.0, 0.0, 0.0]):
    vectors["prefill_s"] = queued
    print(*budget.limits(0, vectors).seconds.round(6))
"""
    assert run_python(extended, "-c", script).splitlines() == [
        "0.1 0.1 0.1 0.1",
        "0.02 0.02 0.02 0.02",
    ]


def test_the_log_of_a_gateway_is_replayed_at_its_own_times(extended: Path, tmp_path: Path) -> None:
    words = ["balancer=sticky", "workload=gateway_log", "compare=false"]
    script = RUN.replace("import even,", "import sticky, even,")
    run_python(extended, "-c", script, *words, str(tmp_path))
    rows = polars.read_parquet(tmp_path / "requests.parquet")
    assert rows["arrival_s"].to_list() == pytest.approx([0.0, 0.35, 1.1, 2.75])
    assert rows["prompt_tokens"].to_list() == [812, 95, 1190, 4020]
    assert rows["rank"][0] == rows["rank"][2] != rows["rank"][1]  # a user is one session


def test_a_component_of_dpbal_is_a_file_a_yaml_and_an_import(
    extended: Path, tmp_path: Path
) -> None:
    without_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(dpbal.__file__).parent, tmp_path / "dpbal", ignore=without_caches)
    if not (tmp_path / "dpbal" / "conf").exists():
        shutil.copytree(CONF, tmp_path / "conf")
    package = tmp_path / "dpbal" / "balancers"
    shutil.copy(extended / "sticky.py", package)
    (folder,) = tmp_path.rglob("conf/balancer")
    shutil.copy(extended / "mine" / "balancer" / "sticky.yaml", folder)
    with (package / "__init__.py").open("a") as table_of_contents:
        table_of_contents.write("from dpbal.balancers.sticky import Sticky as Sticky\n")
    command = "from dpbal.cli import main; main()"
    words = ["--cfg", "job", "balancer=sticky", "balancer.slack=2"]
    printed = run_python(tmp_path, "-c", command, *words, PYTHONPATH=str(tmp_path))
    assert "name: sticky\n  slack: 2\n" in printed
    assert "requests: 1.0\n    in_flight: 1.0\n" in printed
