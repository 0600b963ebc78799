"""The figures over many runs show what the files of these runs say, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars
import pytest
from polars import col

import dpbal
from dpbal.comparison.metrics import METRICS
from dpbal.experiment import run as run_config

pytest.importorskip("matplotlib")

from dpbal.report.contents import Contents, read
from dpbal.report.figures import goodput, heat_map, latency_load, timeline
from dpbal.report.figures.base import Drawing
from dpbal.report.figures.grids import grids
from dpbal.report.figures.load import draw as draw_load

SMALL = ("workload.requests=80", "group.ranks=2", "backend.kv_capacity_tokens=40000")


def run(folder: Path, name: str, *overrides: str) -> dict[str, Any]:
    return run_config(dpbal.compose(*SMALL, *overrides), folder / name, show=False)


def texts(drawing: Drawing) -> list[str]:
    root = ElementTree.fromstring(drawing.svg)
    return ["".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("text")]


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    folder = tmp_path_factory.mktemp("loads")
    for balancer in ("round_robin", "minimum_tokens"):
        for load in (0.5, 0.8):
            for seed in (0, 1):
                choices = (f"balancer={balancer}", f"workload.load={load}", f"seed={seed}")
                run(folder, f"{balancer}-{load}-{seed}", *choices, "compare=false")
    return read(folder)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two balancers by two transports, simulated beside round robin and the pooled reference."""
    folder = tmp_path_factory.mktemp("grid")
    for balancer in ("round_robin", "minimum_tokens"):
        for transport in ("local", "gather_40"):
            choices = (f"balancer={balancer}", f"transport={transport}")
            run(folder, f"{balancer}-{transport}", *choices, "compare=true")
    return folder


def test_a_line_has_the_means_of_its_runs_at_each_load(loads: Contents) -> None:
    (sweep,) = latency_load.sweeps(loads)
    assert [line.label for line in sweep.lines] == ["round_robin", "minimum_tokens"]
    assert [line.is_baseline for line in sweep.lines] == [True, False]
    for line in sweep.lines:
        values = line.values(METRICS["ttft_mean"])
        assert list(values) == [0.5, 0.8]
        for load, told in values.items():
            tables = [
                polars.read_parquet(loads.folder / f"{line.label}-{load}-{seed}/requests.parquet")
                for seed in (0, 1)
            ]
            ttft_s = (col("first_token_s") - col("arrival_s")).mean()
            means = [table.select(ttft_s).item() for table in tables]
            assert sorted(told) == pytest.approx(sorted(means))


def test_latency_against_load_is_drawn_for_ttft_and_e2e(loads: Contents) -> None:
    drawings = latency_load.draw(loads)
    assert len({drawing.name for drawing in drawings}) == len(drawings) == 3
    for drawing, label in zip(drawings, ("TTFT mean", "TTFT p99", "E2E mean"), strict=True):
        assert {f"{label}, s", "round_robin", "minimum_tokens"} <= set(texts(drawing))


def test_an_unstable_run_is_marked(tmp_path: Path) -> None:
    choices = ("workload.requests=300", "workload.allow_overload=true", "compare=false")
    summaries = [run(tmp_path, f"{load}", f"workload.load={load}", *choices) for load in (0.2, 4.0)]
    assert [summary["unstable"] for summary in summaries] == [False, True]
    contents = read(tmp_path)
    (line,) = latency_load.sweeps(contents)[0].lines
    assert [line.is_unstable(load) for load in line.points] == [False, True]
    for drawing in latency_load.draw(contents):
        assert "a run is unstable" in texts(drawing)
        assert "At a cross" in drawing.caption


def test_rates_are_an_axis_too(tmp_path: Path) -> None:
    for rate in (1, 3):
        run(tmp_path, f"{rate}", f"workload.rate={rate}", "compare=false")
    (sweep,) = latency_load.sweeps(read(tmp_path))
    assert list(sweep.lines[0].points) == [1.0, 3.0]
    assert "arrivals, requests/s" in texts(latency_load.draw(read(tmp_path))[0])


def test_one_load_gives_no_figure_of_loads(grid: Path) -> None:
    assert latency_load.draw(read(grid)) == []


def test_the_share_of_good_requests_is_that_of_the_result(loads: Contents) -> None:
    for one in loads.runs:
        requests = loads.requests(one)
        shares = goodput.good_shares(requests, goodput.objectives(one), np.array([1.0]))
        assert shares[0] == one.result.good_share


def test_stricter_objectives_count_as_the_formula_says(loads: Contents) -> None:
    one = loads.runs[0]
    slo = goodput.objectives(one)
    requests = loads.requests(one)
    ttft_s = col("first_token_s") - col("arrival_s")
    tpot_s = (col("finish_s") - col("first_token_s")) / (col("output_tokens") - 1)
    for factor in (0.25, 0.5, 2.0):
        allowed_s = factor * (slo.ttft_s + slo.ttft_s_per_prompt_token * col("prompt_tokens"))
        good = (ttft_s <= allowed_s) & (
            (col("output_tokens") == 1) | (tpot_s <= factor * slo.tpot_s)
        )
        expected = requests.filter(col("outcome").cast(polars.String) == "finished", good).height
        (share,) = goodput.good_shares(requests, slo, np.array([factor]))
        assert share == pytest.approx(expected / requests.height)
    shares = goodput.good_shares(requests, slo)
    assert (np.diff(shares) >= 0).all()
    assert shares[0] < shares[-1]


def test_a_request_that_did_not_finish_is_not_good(tmp_path: Path) -> None:
    run(tmp_path, "cut", "backend.max_time_s=5", "compare=false")
    contents = read(tmp_path)
    (one,) = contents.runs
    finished = one.result.requests.finished
    assert 0 < finished < one.result.requests.offered
    loose = goodput.good_shares(contents.requests(one), goodput.objectives(one), np.array([1e6]))
    assert loose[0] == pytest.approx(finished / one.result.requests.offered)


def test_goodput_is_drawn_for_a_single_run(grid: Path) -> None:
    (drawing,) = goodput.draw(read(grid / "minimum_tokens-local"))
    assert {"objectives times", "minimum_tokens"} <= set(texts(drawing))


def test_a_heat_map_has_the_gap_that_each_pair_closed(grid: Path) -> None:
    contents = read(grid)
    (drawing,) = heat_map.draw(contents)
    assert drawing.title == "Gap closed: balancer x transport"
    assert {"round_robin", "minimum_tokens", "local"} <= set(texts(drawing))
    for one in contents.runs:
        gap = contents.raw(one)["gap_closed"]["e2e_mean"]
        assert f"{round(100 * gap) or 0} %" in texts(drawing)


def test_without_a_gap_the_map_has_changes_against_the_baseline(tmp_path: Path) -> None:
    found: dict[tuple[str, str], float] = {}
    for balancer in ("round_robin", "minimum_tokens"):
        for transport in ("local", "poll_1s"):
            choices = (f"balancer={balancer}", f"transport={transport}", "compare=false")
            summary = run(tmp_path, f"{balancer}-{transport}", *choices)
            found[balancer, summary["config"]["transport"]["name"]] = summary["e2e_s"]["mean"]
    contents = read(tmp_path)
    block = contents.blocks[0]
    e2e, ttft = heat_map.maps_of(contents, block, grids(block.combinations))
    base = next(v for (balancer, _), v in found.items() if balancer == "round_robin")
    shares = sorted(value.share for value in e2e.values.values())
    assert shares == pytest.approx(sorted(value / base - 1 for value in found.values()), abs=1e-9)
    assert all(value.is_better == (value.share < 0) for value in e2e.values.values())
    assert ttft.title == "Change of TTFT"
    assert [drawing.name for drawing in heat_map.draw(contents)] == ["heat-e2e", "heat-ttft"]


def test_a_cell_is_a_mean_over_all_its_runs_or_blank(grid: Path, tmp_path: Path) -> None:
    shutil.copytree(grid, tmp_path / "runs")
    result = run(tmp_path / "runs", "other", "balancer=minimum_tokens", "seed=1", "compare=true")
    result["gap_closed"]["e2e_mean"] = None
    (tmp_path / "runs" / "other" / "result.json").write_text(json.dumps(result))
    contents = read(tmp_path / "runs")
    found = grids(contents.blocks[0].combinations)
    maps = heat_map.maps_of(contents, contents.blocks[0], found)
    assert "gap" not in {one.name for one in maps}


def test_a_pair_that_did_not_run_is_blank(grid: Path, tmp_path: Path) -> None:
    kept = ("round_robin-local", "round_robin-gather_40", "minimum_tokens-local")
    for name in kept:
        shutil.copytree(grid / name, tmp_path / name)
    (drawing,) = heat_map.draw(read(tmp_path))
    cells = [text for text in texts(drawing) if text.endswith(" %")]
    assert len(cells) == len(kept)
    assert "Blank" in drawing.caption


def test_two_combinations_that_differ_in_both_parts_are_no_grid(grid: Path, tmp_path: Path) -> None:
    for name in ("round_robin-local", "minimum_tokens-gather_40"):
        shutil.copytree(grid / name, tmp_path / name)
    assert heat_map.draw(read(tmp_path)) == []


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two balancers by two transports by two budgets, without references."""
    folder = tmp_path_factory.mktemp("three")
    for balancer in ("round_robin", "minimum_tokens"):
        for transport in ("local", "poll_1s"):
            for budget in ("fixed", "level"):
                choices = (f"balancer={balancer}", f"transport={transport}", f"budget={budget}")
                run(folder, f"{balancer}-{transport}-{budget}", *choices, "compare=false")
    return folder


def test_no_cell_is_a_mean_over_a_third_part(three: Path) -> None:
    contents = read(three)
    drawings = heat_map.draw(contents)
    titles = [f"{what}: balancer x transport" for what in ("Change of E2E", "Change of TTFT")]
    assert [one.title for one in drawings] == [
        f"{title} (budget={budget})" for title in titles for budget in ("fixed", "level")
    ]
    assert len({one.name for one in drawings}) == len(drawings)
    base_s = contents.baselines[0].runs[0].result.e2e_s.mean
    assert base_s is not None
    expected: dict[str, list[float]] = {"fixed": [], "level": []}
    for one in contents.runs:
        assert one.result.e2e_s.mean is not None
        share = one.result.e2e_s.mean / base_s - 1
        expected[one.directory.name.rpartition("-")[2]].append(round(100 * share, 1))
    for drawing, told in zip(drawings[:2], expected.values(), strict=True):
        cells = [float(text.rstrip("* %")) for text in texts(drawing) if "%" in text]
        assert sorted(cells) == pytest.approx(sorted(told), abs=0.11)
    assert "0 %" in texts(drawings[0])
    assert "baseline is in the first map" not in drawings[0].caption
    assert "baseline is in the first map" in drawings[1].caption


def test_maps_say_which_combinations_they_do_not_show(three: Path, tmp_path: Path) -> None:
    shutil.copytree(three, tmp_path / "runs")
    for name in ("round_robin-poll_1s", "minimum_tokens-local", "minimum_tokens-poll_1s"):
        shutil.rmtree(tmp_path / "runs" / f"{name}-level")
    drawings = heat_map.draw(read(tmp_path / "runs"))
    assert [one.title.rpartition(" ")[2] for one in drawings] == ["(budget=fixed)"] * 2
    assert "The maps show 4 of 5 combinations" in drawings[0].caption


def test_cells_that_differ_in_a_third_part_say_so(three: Path, tmp_path: Path) -> None:
    for name in ("round_robin-local-fixed", "round_robin-poll_1s-fixed"):
        shutil.copytree(three / name, tmp_path / name)
    for name in ("minimum_tokens-local-level", "minimum_tokens-poll_1s-level"):
        shutil.copytree(three / name, tmp_path / name)
    (drawing, _) = heat_map.draw(read(tmp_path))
    assert drawing.title == "Change of E2E: balancer x transport"
    assert "Cells differ in budget" in drawing.caption


def test_figures_of_few_combinations_say_that_there_are_more(three: Path) -> None:
    contents = read(three)
    for draw in (draw_load, timeline.draw):
        assert "Shown are 3 of 8 combinations" in draw(contents)[0].caption


def test_figures_of_one_setting_say_that_there_are_more(loads: Contents) -> None:
    for draw in (draw_load, timeline.draw):
        assert "one of 2." in draw(loads)[0].caption


def test_objectives_that_differ_are_not_told_as_one(tmp_path: Path) -> None:
    for balancer, ttft_s in (("round_robin", 2.0), ("minimum_tokens", 3.0)):
        choices = (f"balancer={balancer}", f"slo.ttft_s={ttft_s}", "compare=false")
        run(tmp_path, balancer, *choices)
    (drawing,) = goodput.draw(read(tmp_path))
    assert "objectives differ" in drawing.caption
    assert "TTFT of" not in drawing.caption


def test_loads_that_met_by_chance_are_no_sweep(loads: Contents, tmp_path: Path) -> None:
    for name in ("round_robin-0.5-0", "round_robin-0.8-0"):
        shutil.copytree(loads.folder / name, tmp_path / name)
    for balancer in ("minimum_tokens", "least_prefill"):
        run(tmp_path, balancer, f"balancer={balancer}", "workload.load=0.6", "compare=false")
    assert latency_load.draw(read(tmp_path)) == []
