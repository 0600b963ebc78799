"""Files that are cut, or of another dpbal, are refused in one line that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars
import pytest

from dpbal.capacity.search import find_capacity
from dpbal.composition import compose
from dpbal.report import cli
from tests.report.conftest import SMALL
from tests.report.reading import report
from tests.report.test_command import failing


def change(run: Path, **values: Any) -> None:
    file = run / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("name", "column"), [("steps.parquet", "waiting"), ("requests.parquet", "first_token_s")]
)
def test_a_table_without_a_column_is_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str], name: str, column: str
) -> None:
    file = runs / "level-0" / name
    polars.read_parquet(file).drop(column).write_parquet(file)
    for words in ((runs,), (runs / "level-0",), (runs / "level-0", "--trace")):
        _, line = failing(capsys, *words)
        assert f"{name} has no column {column}; run it again with this dpbal" in line
    assert not (runs / "level-0" / "trace.json.gz").exists()


def test_a_lockstep_table_that_is_cut_is_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = runs / "level-0" / "steps.parquet"
    polars.read_parquet(file)[:-2].write_parquet(file)
    for words in ((runs,), (runs / "level-0", "--trace")):
        _, line = failing(capsys, *words)
        assert "steps.parquet is cut" in line


def test_ranks_that_step_alone_may_have_any_number_of_steps(
    independent: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(independent, tmp_path / "run"))
    file = folder / "steps.parquet"
    steps = polars.read_parquet(file)
    for cut in (1, 2):
        steps[:-cut].write_parquet(file)
        cli.main([str(folder), "--trace"])


@pytest.mark.parametrize(
    "key",
    ["pooled", "baseline", "loss", "no_effect", "speed", "decisions", "rate_rps", "gap_closed"],
)
def test_a_result_without_a_key_is_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    file = runs / "level-0" / "result.json"
    result = json.loads(file.read_bytes())
    del result[key]
    file.write_text(json.dumps(result))
    for folder in (runs / "level-0", runs):
        _, line = failing(capsys, folder)
        assert f"has no {key}; run it again" in line


def test_a_setting_that_is_not_known_here_is_left_alone(runs: Path, tmp_path: Path) -> None:
    config = json.loads((runs / "level-0" / "result.json").read_text())["config"]
    change(runs / "level-0", config=config | {"slo": config["slo"] | {"itl_s": 0.2}})
    assert "goodput" in report(runs / "level-0", tmp_path / "report.html").text.lower()


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"config": 1}', "{"])
def test_a_search_that_is_none_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "capacity.json").write_text(text)
    _, line = failing(capsys, tmp_path)
    assert "capacity.json" in line


def test_searches_that_did_not_end_are_said_to_be_left_out(tmp_path: Path) -> None:
    search = ("experiment=capacity", "capacity.seeds=1", "capacity.tolerance=0.4")
    find_capacity(compose(*SMALL, *search), tmp_path / "jobs" / "0", show=False)
    out = tmp_path / "report.html"
    assert "did not end" not in report(tmp_path / "jobs", out).text
    (tmp_path / "jobs" / "1" / ".hydra").mkdir(parents=True)
    text = report(tmp_path / "jobs", out).text
    assert f"left out, for they did not end: {tmp_path / 'jobs' / '1'}" in text
