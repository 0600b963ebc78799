from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean

import pytest

from dpbal.capacity.search import find_capacity
from dpbal.composition import compose
from dpbal.report import cli
from tests.report.conftest import SMALL
from tests.report.reading import report
from tests.test_imports import HEAVY, modules_after


def failing(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    """Status and the one line of a command that must not succeed."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dpbal-report: ")
    assert err.count("\n") == 1
    assert isinstance(ended.value.code, int)
    assert ended.value.code > 0
    return ended.value.code, err


def test_the_page_is_beside_the_runs_and_the_same_each_time(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main([str(runs)])
    first = (runs / "report.html").read_bytes()
    assert str(runs / "report.html") in capsys.readouterr().out
    cli.main([str(runs)])
    assert (runs / "report.html").read_bytes() == first
    assert len(first) < 3e6


def test_title_baseline_and_place_are_the_users(made: Path, tmp_path: Path) -> None:
    page = report(
        made, tmp_path / "mine.html", "--title", "My runs", "--baseline", "minimum_tokens"
    )
    assert "My runs" in page.text
    assert "Against minimum_tokens" in page.text
    assert not (made / "report.html").exists()


def test_runs_of_one_combination_have_nothing_to_be_compared_with(
    made: Path, runs: Path, tmp_path: Path
) -> None:
    for name in ("level", "minimum_tokens"):
        for seed in range(3):
            (runs / f"{name}-{seed}" / "result.json").unlink()
    page = report(runs, tmp_path / "one.html")
    assert "one combination, round_robin" in page.text
    assert "Means over 3 replicates" in page.text
    rows = {row[0]: row[1:] for row in page.table("lowest")}
    results = [json.loads((runs / f"round_robin-{s}/result.json").read_text()) for s in range(3)]
    told = [result["e2e_s"]["mean"] for result in results]
    assert rows["E2E mean (s)"] == [f"{v:.2f}" for v in (fmean(told), min(told), max(told))]


def test_a_trace_is_of_one_run(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main([str(runs / "level-0"), "--trace"])
    assert (runs / "level-0" / "trace.json.gz").stat().st_size > 1000
    cli.main(["--trace", str(runs / "level-1")])
    assert (runs / "level-1" / "trace.json.gz").stat().st_size > 1000
    cli.main([str(runs / "level-0"), "--trace", str(tmp_path / "mine.json.gz")])
    written = (tmp_path / "mine.json.gz").read_bytes()
    assert written == (runs / "level-0" / "trace.json.gz").read_bytes()
    assert not (runs / "level-0" / "report.html").exists()
    capsys.readouterr()
    _, line = failing(capsys, runs, "--trace")
    assert "level-0" in line
    assert "name one" in line


def test_a_capacity_search_has_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = ("experiment=capacity", "capacity.seeds=2", "capacity.tolerance=0.2")
    made = find_capacity(compose(*SMALL, *search), tmp_path / "search", show=False)
    page = report(tmp_path / "search", tmp_path / "capacity.html")
    row = page.table("searches")[1]
    assert row[-1] == "2"
    shown = made["verdict"] if made["load"] is None else f"{made['load']['mean']:.3f}"
    assert row[2] == shown
    capsys.readouterr()
    _, line = failing(capsys, tmp_path / "search", "--baseline", "round_robin")
    assert "--baseline round_robin" in line
    assert "capacity searches" in line


def test_mistakes_are_one_line(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    unfinished = tmp_path / "unfinished"
    (unfinished / ".hydra").mkdir(parents=True)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "result.json").write_text("{")
    cases: dict[str, tuple[str | Path, ...]] = {
        "name a folder": (),
        "there is no run": (tmp_path / "nowhere",),
        "no result.json": (empty,),
        "did not end": (unfinished,),
        "not a result": (damaged,),
        "unknown combination 'randm'": (runs, "--baseline", "randm"),
        "one combination": (runs / "level-0", "--baseline", "round_robin"),
        "there is no folder": (runs, "--out", tmp_path / "no" / "report.html"),
        "is a folder": (runs, "--out", empty),
        "--trace writes no page": (runs / "level-0", "--trace", "--title", "x"),
        "unrecognized arguments": (runs, "--colour"),
    }
    for words, arguments in cases.items():
        _, line = failing(capsys, *arguments)
        assert words in line, arguments


def test_a_damaged_table_is_one_line(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "level-0" / "steps.parquet").write_bytes(b"PAR1")
    for words in ((runs,), (runs / "level-0", "--trace")):
        _, line = failing(capsys, *words)
        assert "steps.parquet" in line


def test_a_result_of_an_older_dpbal_is_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = runs / "level-0" / "result.json"
    result = json.loads(file.read_bytes())
    del result["emulation"]
    file.write_text(json.dumps(result))
    for words in ((runs,), (runs / "level-0", "--trace")):
        _, line = failing(capsys, *words)
        assert "has no emulation" in line


@pytest.mark.parametrize("key", ["slo", "ledger", "profile.prefill_s_per_token"])
def test_a_config_of_an_older_dpbal_is_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    file = runs / "level-0" / "result.json"
    result = json.loads(file.read_bytes())
    *parents, last = ["config", *key.split(".")]
    inner = result
    for name in parents:
        inner = inner[name]
    del inner[last]
    file.write_text(json.dumps(result))
    _, line = failing(capsys, runs)
    assert f"has no {key}; run it again" in line


def test_a_search_among_runs_is_said_to_be_left_out(runs: Path, tmp_path: Path) -> None:
    assert "capacity search" not in report(runs, tmp_path / "runs.html").text
    (runs / "search").mkdir()
    (runs / "search" / "capacity.json").write_text("{}")
    assert "capacity searches: 1" in report(runs, tmp_path / "both.html").text


def test_a_missing_extra_says_what_to_install(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    _, line = failing(capsys, made, "--out", tmp_path / "report.html")
    assert "pip install 'dpbal[report]'" in line
    assert "matplotlib" in line


def test_the_command_line_needs_nothing_heavy() -> None:
    loaded = modules_after("import dpbal.report.cli; dpbal.report.cli.parser()")
    assert not loaded & (HEAVY | {"matplotlib", "jinja2"})
