from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from dpbal.composition import compose
from dpbal.experiment import run as run_config
from dpbal.report import contents, files, theme
from dpbal.report.figures import distributions, gap, load, stragglers, timeline


def test_curves_pass_through_the_quantiles_of_the_result(made: Path) -> None:
    folder = contents.read(made)
    for run in folder.runs:
        found = distributions.latencies_s(folder.requests(run))
        for name in ("ttft", "tpot", "e2e"):
            told = getattr(run.result, f"{name}_s")
            assert np.mean(found[name]) == pytest.approx(told.mean)
            x, y = distributions.survival(found[name])
            assert (np.diff(x) >= 0).all()
            for share, value in ((0.5, told.p50), (0.1, told.p90)):
                assert np.interp(-share, -y, x) == pytest.approx(value, rel=0.03)


def test_the_straggler_share_of_all_windows_together_is_that_of_the_run(made: Path) -> None:
    folder = contents.read(made)
    for run in folder.runs:
        _, (whole,) = stragglers.shares(folder.steps(run), bins=1)
        assert whole == pytest.approx(run.result.straggler_share)
        times_s, shares = stragglers.shares(folder.steps(run))
        assert np.nanmin(shares) < whole < np.nanmax(shares)
        assert 0 < times_s[0] < times_s[-1] < run.result.duration_s


def test_load_is_what_each_rank_was_left_with(made: Path) -> None:
    folder = contents.read(made)
    steps = folder.steps(folder.runs[0])
    times_s, values = load.held(steps, 4, points=41)
    assert values.shape == (4, 41)
    assert (values[:, -1] == 0).all()
    begin_s = steps["start_s"].min()
    for rank in range(4):
        for time_s, value in list(zip(times_s, values[rank], strict=True))[1:-1]:
            own = steps.filter(rank=rank)
            before = own.filter(own["end_s"] - begin_s <= time_s).tail(1)
            assert value == (before["running"] + before["waiting"]).sum()
    assert values.max() > 1


@pytest.mark.parametrize("kind", ["lockstep", "independent"])
def test_the_parts_of_a_step_add_up_to_it(made: Path, independent: Path, kind: str) -> None:
    folder = contents.read(made / "level-0" if kind == "lockstep" else independent)
    (run,) = folder.runs
    assert files.is_lockstep(run) == (kind == "lockstep")
    window = timeline.middle(folder.steps(run), kind == "lockstep")
    steps = window.steps
    per_token_s = run.result.config["profile"]["prefill_s_per_token"]
    parts = timeline.parts_s(steps, per_token_s, kind == "lockstep")
    length_s = (steps["end_s"] - steps["start_s"]).to_numpy()
    assert sum(parts.values()) == pytest.approx(length_s)
    assert min(part.min() for part in parts.values()) > -1e-9
    assert parts["decode"].sum() > 0
    if kind == "lockstep":
        waited = parts["waiting"].reshape(-1, 4)
        assert waited.min(axis=1) == pytest.approx(np.zeros(len(waited)))
        assert len(waited) == steps["start_s"].n_unique() >= timeline.FEWEST_STEPS
    else:
        assert not parts["waiting"].any()
    middle_s = float(folder.steps(run)["end_s"].max()) / 2  # type: ignore[arg-type]
    assert window.begin_s == pytest.approx(middle_s, rel=0.25)
    spans = steps.filter((steps["end_s"] > window.begin_s) & (steps["start_s"] <= window.end_s))
    assert len(spans) == len(steps)
    assert window.end_s > window.begin_s


def test_the_gap_is_that_of_the_results(made: Path) -> None:
    folder = contents.read(made)
    results = [json.loads((made / f"level-{s}" / "result.json").read_text()) for s in range(3)]
    (level,) = [
        c
        for c in folder.blocks[0].combinations
        if "level" in c.label or c.balancer == "least_prefill"
    ]
    told = [result["gap_closed"]["e2e_mean"] for result in results]
    assert None not in told
    assert gap.closed(folder, level)["e2e_mean"] == told
    (drawing,) = gap.draw(folder)
    assert level.label in drawing.svg
    mean = np.mean(gap.closed(folder, level)["tpot_mean"])
    assert f">{100 * mean:.0f} %<" in drawing.svg


def test_the_same_run_is_shown_first_in_all_figures_of_single_runs(made: Path) -> None:
    folder = contents.read(made, baseline="minimum_tokens")
    (selection,) = folder.selections()
    assert selection.combinations[0].balancer == "minimum_tokens"
    for draw in (load.draw, timeline.draw):
        assert draw(folder)[0].title == selection.combinations[0].label


def test_a_figure_has_the_colours_of_the_page_and_is_the_same_each_time() -> None:
    @theme.styled
    def drawn(label: str) -> str:
        figure, (axes,) = theme.canvas()
        axes.plot([1, 2], [3, 4.0001], color=theme.RED, label=label)
        axes.set_title(label)
        axes.legend()
        return theme.to_svg(figure)

    svg = drawn("$5 0.12345 <i> 中")
    assert svg == drawn("$5 0.12345 <i> 中")
    assert "$5 0.12345 &lt;i&gt; 中" in svg
    assert "var(--c4)" in svg
    assert not re.search(r": #[0-9a-f]{6}", svg)
    own = set(re.findall(r' id="([^"]*)"', svg))
    assert own
    assert not own & set(re.findall(r' id="([^"]*)"', drawn("another")))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> contents.Contents:
    """Five requests on forty ranks, so that most ranks never step."""
    folder = tmp_path_factory.mktemp("wide")
    choices = ("workload.requests=5", "group.ranks=40", "group.kind=independent")
    run_config(compose(*choices, "balancer=round_robin", "compare=false"), folder, show=False)
    return contents.read(folder)


def test_ranks_without_a_step_are_of_the_group_too(wide: contents.Contents) -> None:
    steps = wide.steps(wide.runs[0])
    stepped = steps["rank"].to_list()
    assert max(stepped) < 39
    times_s, values = load.held(steps, 40)
    assert values.shape == (40, len(times_s))
    assert values.sum() == load.held(steps, max(stepped) + 1)[1].sum() > 0
    (drawing,) = load.draw(wide)
    assert "the band holds all ranks" in drawing.caption


def test_a_timeline_shows_idle_ranks_too(wide: contents.Contents) -> None:
    (drawing,) = timeline.draw(wide)
    assert "of the first 32 of 40 ranks" in drawing.caption
    assert ">28</text>" in drawing.svg, "the axis ends before the last rank"


def test_a_mean_gap_is_of_all_runs_or_there_is_none(runs: Path) -> None:
    file = runs / "level-1" / "result.json"
    result = json.loads(file.read_text())
    result["gap_closed"]["tpot_mean"] = None
    file.write_text(json.dumps(result))
    folder = contents.read(runs)
    (level,) = [c for c in folder.blocks[0].combinations if c.balancer == "least_prefill"]
    shares = gap.closed(folder, level)
    assert shares["tpot_mean"] == []
    assert len(shares["e2e_mean"]) == 3
    (drawing,) = gap.draw(folder)
    assert "no bar where any run has no such gap" in drawing.caption
    assert "-100 %" in drawing.caption
