"""The benchmark of transports: ranks that are processes, ratios, and timing for the simulator."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from dpbal.bench.cli import main
from dpbal.bench.merged_7379 import Shared, choose
from dpbal.bench.transport import MERGED, SUBJECTS, TransportRow, ratios
from dpbal.bench.transport_case import (
    AGE,
    DISPATCH,
    IDLE,
    LAG,
    LOOK,
    MEET_OTHER,
    MEET_PACED,
    MEET_ROOT,
    PACE,
    PUBLISH,
    PUBLISH_PACED,
    RATE,
    READ_NEW,
    READ_SAME,
    Spread,
)
from dpbal.composition import compose
from dpbal.parts import build

DISPATCHER = {READ_NEW, READ_SAME, LAG, AGE, LOOK, DISPATCH, RATE}
RANKS = {PUBLISH, PUBLISH_PACED, IDLE, PACE}
MEETING = {MEET_ROOT, MEET_OTHER, MEET_PACED}
PACE_STEPS = 200.0


def spread(p50: float) -> Spread:
    return Spread(p50, p50, p50, p50, p50, p50, 1)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All transports whose packages are there, with two ranks, for an instant."""
    names = [n for n in SUBJECTS if not n.startswith("gather") or importlib.util.find_spec("torch")]
    folder = tmp_path_factory.mktemp("transport")
    file = folder / "out.json"
    main(
        [
            *("transport", "--ranks", "2", "--repeats", "1", "--seconds", "0.2"),
            *("--transport", ",".join(names)),
            *("--pace", str(PACE_STEPS), "--timing", str(folder), "--json", str(file)),
        ]
    )
    return {"folder": folder, **json.loads(file.read_text())}


@pytest.mark.slow
def test_every_transport_is_measured_with_ranks_in_processes(report: dict[str, Any]) -> None:
    rows = {row["transport"]: row for row in report["rows"]}
    assert set(SUBJECTS) - {"gather", "gather_1"} <= set(rows)
    assert rows["manager"]["processes"] == rows["shm"]["processes"] + 1 == 4
    for name, row in rows.items():
        assert row["failure"] is None, f"{name}: {row['failure']}"
        expected = DISPATCHER | RANKS | (MEETING if name.startswith("gather") else set())
        assert row["found"].keys() == ({LOOK, DISPATCH, RATE} if name == MERGED else expected)
        for what, of in row["found"].items():
            assert 0 <= of["p50_min"] <= of["p50"] <= of["p50_max"], (name, what)
            assert of["p05"] <= of["p50"] <= of["p95"] <= of["p99"]
        assert row["found"][DISPATCH]["p50"] >= row["found"][LOOK]["p50"]
        if name != MERGED:
            assert 0 < row["found"][PACE]["p50"] <= PACE_STEPS * 1.1


@pytest.mark.slow
def test_reports_of_a_gather_are_as_old_as_the_last_meeting(report: dict[str, Any]) -> None:
    ages = {row["transport"]: row["found"][AGE] for row in report["rows"] if AGE in row["found"]}
    if "gather" not in ages:
        pytest.skip("there is no torch")
    assert ages["gather"]["p95"] > 40 / PACE_STEPS * 1e3 / 2


def test_a_dispatch_is_compared_with_the_same_run_of_shm() -> None:
    rows = [
        TransportRow("manager", 8, 10, None, {LOOK: spread(300.0), DISPATCH: spread(304.0)}),
        TransportRow("shm", 8, 9, None, {LOOK: spread(1.0), DISPATCH: spread(4.0)}),
        TransportRow("shm", 2, 3, None, {LOOK: spread(0.5), DISPATCH: spread(3.5)}),
        TransportRow(MERGED, 2, 2, None, {LOOK: spread(200.0)}),
        TransportRow("zmq", 8, 9, "it failed", {}),
    ]
    assert [(r.transport, r.ranks, r.part, r.times, r.target) for r in ratios(rows)] == [
        ("manager", 8, LOOK, 300.0, 200.0),
        ("manager", 8, DISPATCH, 76.0, None),
        (MERGED, 2, LOOK, 400.0, None),
    ]


@pytest.mark.slow
def test_the_simulator_reads_the_timing(report: dict[str, Any]) -> None:
    found = {row["transport"]: row["found"] for row in report["rows"]}
    for name in found:
        overrides = SUBJECTS[name]
        if name == MERGED:
            assert not (report["folder"] / "transport" / f"{name}_2.yaml").exists()
            continue
        config = compose(f"transport={name}_2", config_dir=report["folder"])
        read = build("transport", config.transport).timing
        own = build("transport", compose(*overrides).transport).timing
        assert (read.interval_steps, read.publish_on_idle) == (
            own.interval_steps,
            own.publish_on_idle,
        )
        lag = found[name][LAG]
        assert read.delay_s == pytest.approx(lag["p05"] / 1e6, abs=1e-7)
        assert read.delay_s + read.jitter_s == pytest.approx(lag["p95"] / 1e6, abs=2e-7)


def test_a_transport_that_fails_is_a_row_that_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SUBJECTS, "zmq", ("transport=zmq", "transport.hosts=[127.0.0.1,127.0.0.2]"))
    file = tmp_path / "out.json"
    main(
        [
            *("transport", "--transport", "zmq", "--ranks", "3", "--repeats", "1"),
            *("--seconds", "0.1", "--timing", str(tmp_path), "--json", str(file)),
        ]
    )
    (row,) = json.loads(file.read_text())["rows"]
    assert "3 ranks do not share 2 hosts equally" in row["failure"]
    assert row["found"] == {}
    assert "zmq, 3 ranks: failed: 3 ranks do not share 2 hosts" in capsys.readouterr().out
    assert not list(tmp_path.glob("transport/*"))


class _Here:
    """What a manager gives, without its process."""

    def __getattr__(self, name: str) -> Any:
        import threading
        from types import SimpleNamespace

        return {"Lock": threading.Lock, "Namespace": SimpleNamespace, "list": list, "dict": dict}[
            name
        ]


def test_the_merged_dispatch_takes_the_rank_with_the_fewest_tokens_held_and_in_flight() -> None:
    shared = Shared(_Here(), 3)
    shared.set_local_tokens([50, 10, 40])
    shared.set_onfly_info([{1: 5}, {2: 30, 3: 30}, {}])
    choose(shared, 4, 20)
    assert shared.onfly_info() == [{1: 5}, {2: 30, 3: 30}, {4: 20}]
    choose(shared, 5, 1)  # 55, 70 and 60
    assert shared.onfly_info()[0] == {1: 5, 5: 1}


def test_a_spread_is_of_repeats_and_leaves_out_those_that_found_nothing() -> None:
    found = Spread.of([[1.0, 2.0, 3.0], [], [7.0]])
    assert found is not None
    assert (found.p50, found.p50_min, found.p50_max, found.samples) == (4.5, 2.0, 7.0, 4)
    assert Spread.of([[], []]) is None
