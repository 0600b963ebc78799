from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dpbal
from dpbal.tracking.outcome import RunOutcome, flat
from dpbal.tracking.run_info import RunInfo, commit


def test_a_run_from_python_is_named_by_its_components(tmp_path: Path) -> None:
    overrides = ("balancer=power_of_two", "transport=gather_40", "seed=3")
    run = RunInfo(dpbal.compose(*overrides), tmp_path)
    assert run.name == "power_of_two/sum/delayed/fixed seed 3"
    assert run.group is None
    assert run.job_type == "power_of_two"
    assert run.tags == ["synthetic", "simulator"]


def test_its_config_says_all_that_makes_the_run(tmp_path: Path) -> None:
    config = dpbal.compose("seed=3", "group.ranks=2")
    told = RunInfo(config, tmp_path).config
    assert (told["seed"], told["group"]["ranks"], told["group"]["kind"]) == (3, 2, "lockstep")
    assert told["versions"]["dpbal"] == dpbal.__version__
    assert told["choices"]["balancer"] == "round_robin"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_commit_says_whether_something_was_changed(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        done = subprocess.run(
            ["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "one")
    git("tag", "v1")
    sha = git("rev-parse", "HEAD")
    assert commit(tmp_path) == sha
    (tmp_path / "file").write_text("two")
    assert commit(tmp_path) == f"{sha}-dirty"


def test_commit_of_what_is_no_repository_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert commit(tmp_path) is None


def test_flat_joins_names_and_leaves_out_what_was_not_measured() -> None:
    nested = {"a": {"b": {"c": 1}, "none": None}, "list": ["x", "y"], "yes": True, "empty": {}}
    assert flat(nested) == {"a/b/c": 1, "list": "x; y", "yes": True}


class Catch:
    """Keeps the outcome that a run hands to its tracker."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outcome: RunOutcome | None = None
        monkeypatch.setattr("dpbal.tracking.none.Untracked.log", self.keep)

    def keep(self, outcome: RunOutcome) -> None:
        self.outcome = outcome


def outcome_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str
) -> tuple[dict[str, object], RunOutcome]:
    caught = Catch(monkeypatch)
    result = dpbal.run(dpbal.compose("experiment=smoke", *overrides), folder)
    assert caught.outcome is not None
    return result, caught.outcome


def test_totals_of_the_ranks_are_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, outcome = outcome_of(tmp_path, monkeypatch)
    table = outcome.tables["ranks"]
    totals = dict(zip(table.columns, map(sum, zip(*table.rows, strict=True)), strict=True))
    assert totals["requests"] == 200
    assert totals["steps"] == result["rank_steps"]
    assert totals["busy_s"] > 0


def test_the_comparison_has_every_metric_of_every_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, outcome = outcome_of(tmp_path, monkeypatch, "balancer=minimum_tokens")
    table = outcome.tables["comparison"]
    assert table.columns == ["metric", "minimum_tokens", "round robin", "pooled", "gap closed"]
    rows = {row[0]: row[1:] for row in table.rows}
    summary = flat(result)
    sides = [summary[f"{side}ttft_s/mean"] for side in ("", "baseline/", "pooled/")]
    assert rows["ttft_s/mean"] == [*sides, summary.get("gap_closed/ttft_mean")]
    assert rows["requests/finished"] == [200, 200, 200, None]
    assert not set(rows) & {"requests_digest", "unstable"}


def test_distributions_run_through_the_quantiles_of_every_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, outcome = outcome_of(tmp_path, monkeypatch, "balancer=minimum_tokens")
    figure = outcome.figures["ttft"]
    assert list(figure.lines) == ["minimum_tokens", "round robin", "pooled"]
    ttft_s, shares = figure.lines["pooled"]
    assert ttft_s[99] == pytest.approx(flat(result)["pooled/ttft_s/p99"])
    assert shares[99] == pytest.approx(0.99)


def test_a_run_without_references_is_compared_with_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, outcome = outcome_of(tmp_path, monkeypatch, "compare=false")
    assert set(outcome.tables) == {"ranks"}
    assert list(outcome.figures["e2e"].lines) == ["round_robin"]


def test_a_run_without_a_tracker_loads_no_tracker(tmp_path: Path) -> None:
    code = (
        "import dpbal, pathlib, sys\n"
        "dpbal.run(dpbal.compose('experiment=smoke'), pathlib.Path('run'))\n"
        "assert 'dpbal.tracking.session' in sys.modules\n"
        "assert 'wandb' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
