"""Where a report or a trace goes, and what is never lost on the way."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dpbal.comparison.load import find
from dpbal.report import cli, page
from dpbal.report.trace import export
from dpbal.report.trace import steps as trace_steps
from tests.report.test_command import failing


def test_a_trace_that_fails_leaves_the_old_one(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = runs / "level-0"
    (run,) = find([folder]).runs
    out = folder / "trace.json.gz"
    export(run, out)
    before = out.read_bytes()
    names = {file.name for file in folder.iterdir()}

    def fails(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(trace_steps, "events", fails)
    with pytest.raises(RuntimeError):
        export(run, out)
    assert out.read_bytes() == before
    assert {file.name for file in folder.iterdir()} == names


def test_a_page_that_fails_leaves_the_old_one(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs / "report.html").write_text("old")
    names = {file.name for file in runs.iterdir()}

    def fails(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(page, "render", fails)
    failing(capsys, runs)
    assert (runs / "report.html").read_text() == "old"
    assert {file.name for file in runs.iterdir()} == names


@pytest.mark.parametrize(
    "name", ["result.json", "config.yaml", "steps.parquet", "capacity.json", "dpbal-run.log"]
)
def test_no_file_of_a_run_is_written_over(
    runs: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = runs / "level-0"
    before = {file: file.read_bytes() for file in folder.iterdir()}
    for words in ((runs, "--out"), (folder, "--trace")):
        _, line = failing(capsys, *words, folder / name)
        assert f"{name} is the name of a file of a run" in line
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_a_link_to_a_file_of_a_run_is_no_way_around(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "mine.html").symlink_to(runs / "level-0" / "result.json")
    failing(capsys, runs, "--out", runs / "mine.html")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that takes no file")
def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_read(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("has begun its work")

    monkeypatch.setattr("dpbal.report.contents.read", read)
    _, line = failing(capsys, made, "--out", "/proc/report.html")
    assert "/proc/report.html cannot be written to" in line
    assert "--out" in line


def test_runs_that_are_not_there_are_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    _, line = failing(capsys, "/no-such-folder/runs")
    assert "there is no run /no-such-folder/runs" in line


def test_a_pattern_of_runs_needs_a_place_for_the_page(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = f"{made.parent}/*/level-*"
    _, line = failing(capsys, pattern)
    assert "type --out FILE" in line
    cli.main([pattern, "--out", str(tmp_path / "mine.html")])
    assert (tmp_path / "mine.html").is_file()


def test_a_link_stays_one_and_its_target_is_written(made: Path, tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to(tmp_path / "whole.html")
    cli.main([str(made / "level-0"), "--out", str(tmp_path / "link.html")])
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "whole.html").stat().st_size > 1000


def test_a_pipe_is_written_to_as_it_is(made: Path) -> None:
    cli.main([str(made / "level-0"), "--out", os.devnull])
    assert Path(os.devnull).is_char_device()


def test_a_folder_may_have_any_name(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"bad\xff")
    shutil.copytree(made / "level-0", folder / "0")
    shutil.copytree(made / "round_robin-0", folder / "1")
    cli.main([str(folder)])
    assert "2 runs in bad" in (folder / "report.html").read_text(encoding="utf-8")
    cli.main([str(folder / "0"), "--trace"])
    assert (folder / "0" / "trace.json.gz").stat().st_size > 1000
