from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

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
    for block in re.finditer(r"^```(?:python|yaml)\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        names = re.findall(r"^`([\w/]+\.(?:py|yaml))`", page[: block.start()], re.MULTILINE)
        path = folder / names[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block[1])
    run = folder / "run.py"
    run.write_text(f"import queue_length\n{run.read_text()}")
    (folder / "mine" / "signal").mkdir()
    (folder / "mine" / "signal" / "queue_length.yaml").write_text("name: queue_length\n")
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
    chosen = re.search(r"balancer=(\w+)", words)
    assert chosen is not None
    assert ("3 of them run" if " -m " in words else f"{chosen[1]} + ") in printed


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
