"""What a report says of the load that runs were asked for, and which of them is the baseline."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from dpbal.report import overview
from dpbal.report.contents import read
from dpbal.report.figures import latency_load
from tests.report.test_sweep_figures import run


def test_a_sweep_has_one_baseline(tmp_path: Path) -> None:
    ran = {
        "round_robin": (0.5, 0.7),
        "minimum_tokens": (0.5, 0.7, 0.8),
        "least_prefill": (0.5, 0.8),
    }
    for balancer, loads in ran.items():
        for load in loads:
            choices = (f"balancer={balancer}", f"workload.load={load}", "compare=false")
            run(tmp_path, f"{balancer}-{load}", *choices)
    contents = read(tmp_path)
    bases = sorted(base.balancer for base in contents.baselines)
    assert bases == ["least_prefill", "round_robin", "round_robin"]
    (sweep,) = latency_load.sweeps(contents)
    assert [line.is_baseline for line in sweep.lines] == [True, False, False]
    assert sweep.lines[0].label == "round_robin"


def test_a_load_whose_place_a_rate_took_is_not_told(tmp_path: Path) -> None:
    run(tmp_path, "typed", "workload.rate=2", "compare=false")
    told = dict(overview.facts(read(tmp_path)))
    assert "load" not in told
    assert told["requests/s"] == "2.00"
    for load in (0.5, 0.8):
        run(tmp_path, f"{load}", f"workload.load={load}", "compare=false")
    (sweep,) = latency_load.sweeps(read(tmp_path))
    assert list(sweep.lines[0].points) == [0.5, 0.8]
