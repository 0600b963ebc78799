from __future__ import annotations

import importlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest

import dpbal
from dpbal.tracking import TRACKERS
from tests.docs.pages import blocks
from tests.tracking.journal import Journal

CALLS = ["check", "start", "log", "finish"]
PATIENT = ["experiment=smoke", "balancer=minimum_tokens"]
DOOMED = [*PATIENT, "backend.kv_capacity_tokens=16"]  # no request fits, so no load can be set


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder of configs with another tracker: its class, and a file to choose it by."""
    monkeypatch.setitem(TRACKERS._classes, "journal", Journal)
    (tmp_path / "conf" / "tracker").mkdir(parents=True)
    (tmp_path / "conf" / "tracker" / "journal.yaml").write_text(
        f"name: journal\nfile: {tmp_path}/journal\nfails_in: ''\n"
    )
    return tmp_path / "conf"


def journal(conf: Path) -> dict[str, Any]:
    lines = (conf.parent / "journal").read_text().splitlines()
    assert len(lines) == len({json.loads(line)[0] for line in lines})
    return dict(map(json.loads, lines))


def run(folder: Path, *overrides: str, conf: Path | None = None) -> dict[str, Any]:
    return dpbal.run(dpbal.compose(*overrides, config_dir=conf), folder)


def left_by(folder: Path) -> dict[str, Any]:
    """All that a run leaves but how fast it went and who followed it."""
    result = json.loads((folder / "result.json").read_text())
    del result["speed"], result["decisions"], result["config"]["tracker"]
    tables = {file.name: file.read_bytes() for file in folder.glob("*.parquet")}
    assert len(tables) == 2
    return {"result": result, **tables}


def test_another_tracker_is_one_file(conf: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "run", *PATIENT, "tracker=journal", "name=study", conf=conf)
    told = journal(conf)
    name = "minimum_tokens/sum/local/fixed seed 0"
    assert told["start"] == [name, "study", "minimum_tokens", ["synthetic", "simulator"], 0]
    assert told["log"]["ttft_s/p99"] == result["ttft_s"]["p99"]
    assert told["log"]["pooled/e2e_s/mean"] == result["pooled"]["e2e_s"]["mean"]
    assert told["log"]["requests/finished"] == 200
    assert None not in told["log"].values()
    assert told["finish"] is None


def test_a_tracker_changes_no_file_of_a_run(conf: Path, tmp_path: Path) -> None:
    run(tmp_path / "without", *PATIENT)
    run(tmp_path / "with", *PATIENT, "tracker=journal", conf=conf)
    assert left_by(tmp_path / "with") == left_by(tmp_path / "without")


def test_the_tracker_on_the_page_keeps_its_line(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(TRACKERS._classes, "journal")
    (example,) = blocks("docs/tracking.md", "python")
    (tmp_path / "page.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("page")
    (conf / "tracker" / "journal.yaml").write_text("name: journal\nfile: lines\n")
    result = run(tmp_path / "run", *PATIENT, "tracker=journal", conf=conf)
    line = json.loads((tmp_path / "lines").read_text())
    assert line["summary"]["duration_s"] == result["duration_s"]
    assert (line["config"]["seed"], line["error"]) == (0, None)


@pytest.mark.parametrize("calls", [*CALLS, "start finish", "log finish"])
def test_a_tracker_that_fails_costs_one_warning_and_nothing_else(
    calls: str, conf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path / "without", *PATIENT)
    failing = ["tracker=journal", f"tracker.fails_in='{calls}'"]
    with caplog.at_level(logging.WARNING):
        run(tmp_path / "with", *PATIENT, *failing, conf=conf)
    (warning,) = [record.getMessage() for record in caplog.records]
    first = calls.split()[0]
    assert warning.startswith("tracker=journal failed and is left out")
    assert warning.endswith(
        f"tracker=none: RuntimeError: cannot {first}: the disk of the journal is full"
    )
    assert left_by(tmp_path / "with") == left_by(tmp_path / "without")
    assert "finish" in journal(conf)


def test_a_tracker_that_failed_is_not_told_more(
    conf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path / "run", *PATIENT, "tracker=journal", "tracker.fails_in=start", conf=conf)
    assert set(journal(conf)) == {"finish"}


def test_a_tracker_may_refuse_before_anything_runs(conf: Path, tmp_path: Path) -> None:
    config = dpbal.compose(*PATIENT, "tracker=journal", f"tracker.file={tmp_path}", config_dir=conf)
    with pytest.raises(dpbal.ConfigError, match="is a folder; type a file's name"):
        dpbal.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("calls", ["", "start", "finish"])
def test_an_experiment_that_fails_is_told_to_the_tracker_and_to_the_user(
    calls: str, conf: Path, tmp_path: Path
) -> None:
    with pytest.raises(dpbal.WorkloadError, match="no request of the workload fits"):
        run(tmp_path / "run", *DOOMED, "tracker=journal", f"tracker.fails_in='{calls}'", conf=conf)
    told = journal(conf)
    assert told["finish"].startswith("WorkloadError: no request of the workload fits")
    assert "log" not in told


def test_a_run_that_is_interrupted_has_failed(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dpbal.console.show", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", *PATIENT, "tracker=journal", conf=conf)
    assert journal(conf)["finish"].startswith("KeyboardInterrupt")
