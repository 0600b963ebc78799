from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from dpbal.comparison.cli import main
from dpbal.comparison.comparison import compare
from dpbal.comparison.metrics import DEFAULT
from tests.comparison.runs import seeds, write
from tests.test_imports import HEAVY, modules_after

ROUND_ROBIN = [1.0, 1.3, 0.8, 1.1, 0.9]
RANDOM = [1.05, 1.37, 0.84, 1.16, 0.94]


@pytest.fixture
def multirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Round robin and random on five seeds, in ``multirun/`` of the working directory."""
    monkeypatch.chdir(tmp_path)
    made = [*seeds("round_robin", ROUND_ROBIN), *seeds("random", RANDOM)]
    return write(Path("multirun"), made)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(words)
    return capsys.readouterr().out


def test_the_console_has_counts_effects_and_how_to_read_them(
    multirun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, "multirun").splitlines()
    (counts,) = [line.split() for line in lines if line.startswith("random")]
    assert counts == ["random", "5", "5", "1,500", "1,500", "0", "0", "0", "0"]
    (row,) = [i for i, line in enumerate(lines) if line.startswith("TTFT mean (s)")]
    assert "round_robin" in lines[row]
    assert "+5.1 %" in lines[row + 1]
    assert lines[row + 1].rstrip().endswith("worse")
    assert "at 95 %" in lines[-2]
    assert "at most 5 %" in lines[-1]
    assert max(map(len, lines)) < 500


@pytest.mark.parametrize(
    "words",
    [
        ["multirun/*"],
        ["multirun/?", "multirun"],
        [f"multirun/{job}" for job in range(10)],
        ["mult*/**/result.json"],
        ["multirun/multirun.yaml", "multirun"],
    ],
    ids=["glob", "twice", "each", "deep", "shell"],
)
def test_all_ways_to_name_the_same_runs(
    multirun: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    (multirun / "multirun.yaml").touch()
    whole = printed(capsys, "multirun")
    assert printed(capsys, *words) == whole


def test_jobs_are_taken_by_number(tmp_path: Path) -> None:
    made = [seeds(name, [1.0])[0] for name in ("vllm", *"abcdefghi", "random")]
    comparison = compare([write(tmp_path, made)])
    order = [one.combination.label for one in comparison.tables[0].others]
    assert order == [*"abcdefghi", "random"]


def test_markdown_has_the_rows_of_the_console(
    multirun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, "multirun", "--markdown", "-")
    assert "| TTFT mean (s) | round_robin |" in text
    assert "\n|  | random | 0." in text
    assert "| +5.1 % | [" in text
    tables = [part for part in text.split("\n\n") if part.startswith("|")]
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert printed(capsys, "multirun", "--markdown", "-") == text


def test_csv_is_one_row_for_each_metric(multirun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(printed(capsys, "multirun", "--csv", "-"))))
    assert [row["metric"] for row in rows] == [*DEFAULT, *DEFAULT]
    assert [row["combination"] for row in rows[: len(DEFAULT)]] == ["round_robin"] * len(DEFAULT)
    assert (rows[0]["finished"], rows[0]["verdict"]) == ("1500", "")
    row = rows[len(DEFAULT)]
    assert (row["baseline"], row["combination"]) == ("round_robin", "random")
    assert (row["method"], row["verdict"], row["correction"]) == ("paired t", "worse", "holm")
    low, mid, high = (float(row[f"relative_change{end}"]) for end in ("_low", "", "_high"))
    assert 0 < low < mid < high
    assert float(row["mean"]) - float(row["baseline_mean"]) == pytest.approx(float(row["change"]))
    assert (row["offered"], row["finished"], row["replicates"]) == ("1500", "1500", "5")
    share = rows[-1]
    assert (share["metric"], share["relative_change"]) == ("straggler_share", "")


def test_files_are_written_beside_the_console(
    multirun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(capsys, "multirun", "--csv", "a.csv", "--markdown", "b.md")
    assert out == printed(capsys, "multirun")
    assert Path("a.csv").read_text() == printed(capsys, "multirun", "--csv", "-")
    assert Path("b.md").read_text() == printed(capsys, "multirun", "--markdown", "-")


def test_metrics_and_level_are_chosen(multirun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["multirun", "--metrics", "e2e_p90,ttft_p50", "--csv", "-"]
    wide = list(csv.DictReader(io.StringIO(printed(capsys, *words, "--level", "0.99"))))
    narrow = list(csv.DictReader(io.StringIO(printed(capsys, *words, "--level", "0.5"))))
    assert [row["metric"] for row in wide] == ["e2e_p90", "ttft_p50"] * 2
    for a, b in zip(wide[2:], narrow[2:], strict=True):
        assert float(a["change_low"]) < float(b["change_low"])


def mistake(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int | str | None, str]:
    with pytest.raises(SystemExit) as end:
        main(words)
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("dpbal-compare: ")
    assert error.count("\n") == 1
    return end.value.code, error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "there is no run nowhere"),
        (["nowhere/*"], "no run matches nowhere/*"),
        ([], "RUN"),
        (["multirun/0"], "the only run is of one combination, round_robin"),
        (["multirun/[0-4]"], "all 5 runs are of one combination, round_robin"),
        (["multirun/0", "--by", "argument"], "name a second RUN"),
        (["multirun", "--by", "argument"], "holds 2 combinations: round_robin, random"),
        (["multirun", "--baseline", "randm"], "did you mean 'random'?"),
        (["multirun", "--baseline", "transport=locl"], "did you mean 'local'?"),
        (["multirun", "--baseline", "tarnsport=local"], "did you mean 'transport'?"),
        (["multirun", "--baseline", "transport=local,budget"], "expected key=value"),
        (["multirun", "--metrics", "ttft_men"], "did you mean 'ttft_mean'?"),
        (["multirun", "--metrics", ","], "no metric is named"),
        (["multirun", "--level", "95"], "between 0 and 1, such as 0.95, got 95"),
        (["multirun", "--level", "nan"], "between 0 and 1"),
        (["multirun", "--correct", "hol"], "invalid choice: 'hol'"),
        (["multirun", "--csv", "no/where.csv"], "--csv no/where.csv: there is no folder no"),
        (["multirun", "--csv", "-", "--markdown", "-"], "exclude each other"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    multirun: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    code, error = mistake(capsys, *words)
    assert code == 2
    assert says in error


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "truncated"),
        ('{"requests": {"offe', "truncated"),
        ("[]", "Expected `object`, got `array`"),
        ("{}", "missing required field `requests`; run it again"),
    ],
)
def test_an_unreadable_result_is_named_with_the_reason(
    multirun: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    (multirun / "7" / "result.json").write_text(text)
    code, error = mistake(capsys, "multirun")
    assert code == 1
    assert "multirun/7/result.json is not a result of dpbal-run" in error
    assert says in error


def test_a_wrong_value_in_a_result_is_named(
    multirun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = multirun / "7" / "result.json"
    content = json.loads(file.read_text())
    content["ttft_s"]["mean"] = "fast"
    file.write_text(json.dumps(content))
    assert "got `str` - at `$.ttft_s.mean`" in mistake(capsys, "multirun")[1]
    content["ttft_s"]["mean"] = 1.0
    for digest in ("requests_digest", "content_digest"):
        without = {key: value for key, value in content.items() if key != digest}
        file.write_text(json.dumps(without))
        error = mistake(capsys, "multirun")[1]
        assert f"missing required field `{digest}`; run it again" in error
    content["config"] = {}
    file.write_text(json.dumps(content))
    assert "names no balancer" in mistake(capsys, "multirun")[1]


def test_a_run_that_did_not_end_is_an_error_where_it_is_named_itself(
    multirun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (multirun / "7" / "result.json").unlink()
    code, error = mistake(capsys, "multirun/7", "multirun/0")
    assert (code, "the run did not end" in error) == (1, True)
    for job in range(10):
        (multirun / str(job) / "result.json").unlink(missing_ok=True)
    assert "none of its 10 runs ended" in mistake(capsys, "multirun")[1]
    (multirun / "3" / "capacity.json").touch()
    assert "is a capacity search" in mistake(capsys, "multirun/3")[1]
    Path("empty").mkdir()
    assert "and no folder in it does" in mistake(capsys, "empty")[1]


def test_help_needs_nothing_heavy() -> None:
    loaded = modules_after(
        "from dpbal.comparison.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert not loaded & (HEAVY | {"rich", "numpy"})
