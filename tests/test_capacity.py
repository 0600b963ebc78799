from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dpbal
from dpbal.capacity.bisection import Verdict, cross, halvings
from dpbal.errors import ConfigError

SMALL = ("workload.requests=100", "group.ranks=2", "capacity.tolerance=0.1", "capacity.seeds=2")


@given(st.floats(0.15, 0.95), st.floats(0.001, 0.2))
def test_the_crossing_of_a_falling_attainment_is_found(capacity: float, tolerance: float) -> None:
    found = cross(lambda load: math.exp(-load / capacity), math.exp(-1), 0.1, 1.0, tolerance)
    assert found.verdict is Verdict.found
    assert found.load is not None
    assert found.load <= capacity * (1 + 1e-9)
    assert capacity - found.load <= tolerance * (1 + 1e-9)
    assert found.rises == []
    assert len(found.points) == 2 + halvings(0.1, 1.0, tolerance)


@pytest.mark.parametrize(
    ("capacity", "verdict"), [(0.05, Verdict.below_low), (2.0, Verdict.above_high)]
)
def test_a_crossing_outside_of_the_ends_is_said_to_be_so(capacity: float, verdict: Verdict) -> None:
    found = cross(lambda load: float(load <= capacity), 0.9, 0.1, 1.0, 0.01)
    assert (found.verdict, found.load) == (verdict, None)


def test_an_attainment_that_rises_is_noticed() -> None:
    shares = {0.1: 1.0, 0.55: 0.3, 1.0: 0.6, 0.325: 0.95, 0.4375: 0.2}
    found = cross(shares.__getitem__, 0.9, 0.1, 1.0, 0.12)
    assert found.load == 0.325
    assert found.rises == [(0.4375, 0.55), (0.55, 1.0)]


def test_a_search_says_what_it_found_and_how_sure_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dpbal.compose("experiment=capacity", "slo.ttft_s=0.15", *SMALL)
    summary = dpbal.find_capacity(config, tmp_path)
    assert summary == json.loads((tmp_path / "capacity.json").read_text())
    assert summary["verdict"] == "found"
    loads = [seed["load"] for seed in summary["seeds"]]
    assert [seed["seed"] for seed in summary["seeds"]] == [0, 1]
    assert summary["load"]["low"] <= sum(loads) / 2 <= summary["load"]["high"]
    for seed in summary["seeds"]:
        shares = {point["load"]: point["good_share"] for point in seed["points"]}
        assert shares[seed["load"]] >= 0.9
        above = min(load for load in shares if load > seed["load"])
        assert shares[above] < 0.9
        assert above - seed["load"] <= 0.1
        assert seed["rate_rps"] == pytest.approx(seed["load"] * seed["saturation_rps"])
    assert f"capacity: {sum(loads) / 2:.3f} [" in capsys.readouterr().out


@pytest.mark.parametrize("spread_bins", ["true", "false"])
def test_a_trace_is_searched_once_whatever_the_seeds(
    spread_bins: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"timestamp": 1000 * n, "input_length": 500 + n, "output_length": 50} for n in range(100)
    ]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = dpbal.compose(
        *("experiment=capacity", "workload=mooncake_conversation", f"workload.path={trace}"),
        *(f"workload.spread_bins={spread_bins}", "capacity.seeds=3", "capacity.tolerance=0.1"),
        *("group.ranks=2", "slo.ttft_s=0.2", "slo.ttft_s_per_prompt_token=0", "slo.tpot_s=1"),
    )
    summary = dpbal.find_capacity(config, tmp_path / "search")
    out = capsys.readouterr().out
    assert [seed["seed"] for seed in summary["seeds"]] == [0]
    assert (summary["load"]["low"], summary["load"]["high"]) == (None, None)
    assert [line for line in out.splitlines() if line in summary["warnings"]] == [
        "the trace is the same for every seed: one search, no interval; "
        "use workload.windows for more"
    ]
    assert "95 % interval" not in out


def test_a_point_of_a_search_is_the_run_at_that_load(tmp_path: Path) -> None:
    config = dpbal.compose("experiment=capacity", "slo.ttft_s=0.15", *SMALL)
    searched = dpbal.find_capacity(config, tmp_path / "search", show=False)["seeds"][1]["points"][1]
    run = dpbal.compose(
        *("slo.ttft_s=0.15", "workload.requests=100", "group.ranks=2", "compare=false", "seed=1"),
        f"workload.load={searched['load']}",
    )
    assert dpbal.run(run, tmp_path / "run")["good_share"] == searched["good_share"]


def test_a_lenient_objective_is_met_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lenient = dpbal.compose("experiment=capacity", "slo.ttft_s=1e6", "slo.tpot_s=1e6", *SMALL)
    summary = dpbal.find_capacity(lenient, tmp_path)
    assert (summary["verdict"], summary["load"]) == ("above high", None)
    assert "loads 0.05 to 1: above high" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("capacity.attainment=0", "capacity.attainment must be in"),
        ("capacity.low=1", "capacity.low must be positive and below capacity.high, got 1.0 and 1"),
        ("capacity.tolerance=0", "capacity.tolerance must be positive"),
        ("capacity.seeds=0", "capacity.seeds must be at least 1"),
        ("capacity.sed=0", "unknown capacity key 'sed'; did you mean 'seeds'"),
    ],
)
def test_a_search_that_makes_no_sense_is_a_mistake(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dpbal.compose("experiment=capacity", override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("capacity.high=2", "above 1, where queues grow.*workload.allow_overload=true"),
        ("workload.rate=3", "type workload.rate=null"),
    ],
)
def test_a_search_that_cannot_be_done_is_a_mistake(
    override: str, message: str, tmp_path: Path
) -> None:
    config = dpbal.compose("experiment=capacity", override, *SMALL)
    with pytest.raises(ConfigError, match=message):
        dpbal.find_capacity(config, tmp_path)


def test_a_search_is_not_taken_for_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"call dpbal\.find_capacity"):
        dpbal.run(dpbal.compose("experiment=capacity"), tmp_path)
    with pytest.raises(ConfigError, match="add experiment=capacity"):
        dpbal.compose("capacity.seeds=3")
