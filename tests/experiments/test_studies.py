"""Tables of the studies follow from their rows, and their command keeps what it ran."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, cast

import polars
import pytest

from experiments import plans, questions
from experiments.effects import POOLED
from experiments.plans import Task

ROOT = Path(__file__).parents[2] / "experiments"
STUDIES = ("budgets", "caches", "dispatchers", "pr_7379", "scale", "signals", "staleness")

HERE = cast(ProcessPoolExecutor, SimpleNamespace(map=map))
"""Runs in this process."""


class Named(NamedTuple):
    """A cell that says its workload."""

    workload: str

    def lines(self, draw: int) -> tuple[str, ...]:
        return ()


class Small(NamedTuple):
    """A cell of a few requests."""

    ranks: int

    def lines(self, draw: int) -> tuple[str, ...]:
        return ("workload.requests=20", f"group.ranks={self.ranks}", f"seed={draw}")


def command(folder: Path, asked: list[str]) -> None:
    """A study of one question, which takes no time."""

    def answer(question: str, pool: ProcessPoolExecutor) -> polars.DataFrame:
        asked.append(question)
        return polars.DataFrame({"lost": [0, 3]})

    def text(question: str, rows: polars.DataFrame) -> str:
        return f"{question}: {len(rows)} rows\n"

    questions.main("A study.", folder, {"first": 1, "second": 2}, answer, text, needs_traces=False)


@pytest.mark.parametrize("name", STUDIES)
def test_committed_tables_are_those_of_the_committed_rows(name: str) -> None:
    study, folder = import_module(f"experiments.{name}.run"), ROOT / name
    assert {f"{question}.csv" for question in study.QUESTIONS} == {
        file.name for file in folder.glob("*.csv")
    }
    found = questions.report(folder, study.QUESTIONS, study.text)
    assert found == (folder / "results.md").read_text()


def test_a_folder_is_made_for_what_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "new" / "folder"
    monkeypatch.setattr("sys.argv", ["study", "--out", str(out), "--only", "second", "--jobs", "1"])
    asked: list[str] = []
    command(tmp_path, asked)
    assert asked == ["second"]
    assert polars.read_csv(out / "second.csv")["lost"].to_list() == [0, 3]
    assert (out / "results.md").read_text() == "second: 2 rows\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--jobs", "0"], "--jobs is 0, and must be at least 1"),
        (["--out", "FILE"], "--out: no folder can be made at FILE"),
        (["--out", "FILE/within"], "--out: no folder can be made at FILE/within"),
        (["--only", "third"], "invalid choice: 'third'"),
    ],
)
def test_mistakes_are_told_before_the_work(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    monkeypatch.setattr("sys.argv", ["study", *arguments])
    asked: list[str] = []
    with pytest.raises(SystemExit) as stop:
        command(tmp_path, asked)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert not asked


def test_tasks_are_the_held_out_draws_of_each_cell_in_turn() -> None:
    cells = [Named("azure_conv"), Named("conv_like")]
    found = list(plans.tasks(cells, {POOLED: None}))
    assert [(task.cell, task.draw) for task in found] == [
        *((cells[0], window) for window in range(5, 10)),
        *((cells[1], seed) for seed in range(2, 10)),
    ]
    fewer = list(plans.tasks(cells, {POOLED: None}, most=2))
    assert [task.draw for task in fewer] == [5, 6, 2, 3]
    assert fewer[0].policies == {POOLED: None}


def test_a_plan_has_a_row_for_each_policy_of_each_draw() -> None:
    policies = {"ours": ("balancer=least_prefill", "budget=fixed"), POOLED: None}
    rows = plans.answer((Task(Small(2), seed, policies) for seed in (3, 4)), HERE)
    assert rows.select("ranks", "draw", "policy", "setting", "lost").rows() == [
        (2, 3, "ours", "balancer=least_prefill budget=fixed", 0),
        (2, 3, POOLED, "", 0),
        (2, 4, "ours", "balancer=least_prefill budget=fixed", 0),
        (2, 4, POOLED, "", 0),
    ]
    assert rows["TTFT s"].n_unique() == 4


def test_rows_may_be_finished_before_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["study"])
    monkeypatch.setattr(plans, "answer", lambda *_: polars.DataFrame({"lost": [0], "setting": "a"}))
    plans.main(
        "A study.",
        tmp_path,
        {"only": lambda: []},
        lambda question, rows: f"{rows.columns}",
        needs_traces=False,
        finished=lambda rows: rows.drop("setting"),
    )
    assert (tmp_path / "only.csv").read_text() == "lost\n0\n"
    assert (tmp_path / "results.md").read_text() == "['lost']"
