from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dpbal.comparison.comparison import compare
from dpbal.report import theme
from dpbal.report.figures import TOPICS
from dpbal.report.page import CSS, HERE
from tests.report.reading import Page, report


@pytest.fixture(scope="module")
def page(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return report(made, tmp_path_factory.mktemp("page") / "report.html")


def change(run: Path, **values: Any) -> None:
    file = run / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_page_needs_nothing_but_itself(page: Page) -> None:
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("href", "src", "xlink:href"):
                assert value is not None
                assert value.startswith("#"), (tag, value)
            assert not name.startswith("on"), (tag, name)
    assert "@import" not in page.text
    assert not re.search(r"url\((?!#)", page.text)


def test_every_link_of_the_page_has_a_place_and_no_name_is_there_twice(page: Page) -> None:
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    links = [attributes["href"] or "" for tag, attributes in page.tags if "href" in attributes]
    assert {link.removeprefix("#") for link in links} <= set(names)
    clips = {
        re.sub(r"url\(#(.*)\)", r"\1", a["clip-path"] or "")
        for _, a in page.tags
        if "clip-path" in a
    }
    assert clips <= set(names)


def test_the_effects_are_those_of_the_comparison(page: Page, made: Path) -> None:
    (table,) = compare([made]).tables
    glance = page.table("TTFT mean (s)")
    for other, row in zip(table.others, glance[2:], strict=True):
        assert row[0] == other.combination.label
        shown = float(row[1].strip("▲▼ %").replace(",", ""))
        estimate = other.effects[0].ratio
        assert estimate is not None
        assert shown == pytest.approx(100 * estimate.mean, abs=0.051)
    whole = page.table("verdict")
    assert "95 % interval" in whole[0]
    verdicts = {row[-1].strip("▲▼ ") for row in whole[1:] if len(row) == 5 and row[3]}
    assert verdicts >= {"better"}
    assert verdicts == {effect.verdict.value for one in table.others for effect in one.effects}


def test_one_run_stands_beside_its_references(made: Path, tmp_path: Path) -> None:
    page = report(made / "level-0", tmp_path / "report.html")
    result = json.loads((made / "level-0" / "result.json").read_text())
    rows = {row[0]: row[1:] for row in page.table("gap closed")}
    sides = (result, result["baseline"], result["pooled"])
    assert rows["TTFT mean (s)"][:3] == [f"{side['ttft_s']['mean']:.3f}" for side in sides]
    assert rows["TPOT mean (ms)"][:3] == [f"{1e3 * side['tpot_s']['mean']:.1f}" for side in sides]
    gap = result["gap_closed"]["e2e_mean"]
    assert rows["E2E mean (s)"][3] == ("-" if gap is None else f"{gap:.0%}")
    removed = result["loss"]["budget"]["removed"]["tpot_mean"]
    loss = {row[0]: row for row in page.table("budget (level)")}
    assert loss["TPOT mean (ms)"][3] == ("-" if removed is None else f"{removed:.0%}")
    assert "seed" in page.text


def test_figures_have_names_for_those_who_do_not_see_them(page: Page) -> None:
    pictures = page.attributes("svg")
    assert len(pictures) > 8
    for picture in pictures:
        assert picture["role"] == "img"
        assert len(picture["aria-label"] or "") > 40
        assert "viewbox" in picture
        assert "width" not in picture


def test_a_topic_is_drawn_or_says_what_it_needs(page: Page) -> None:
    names = {attributes.get("id") for _, attributes in page.tags}
    for topic in TOPICS:
        assert (topic.name in names) != (topic.needs in page.text), topic.name
    drawn = {topic.name for topic in TOPICS if topic.name in names}
    assert drawn >= {"latencies", "gaps", "loads", "waits", "timelines"}
    assert "latency-against-load" not in drawn


def test_all_colours_of_figures_are_variables_of_the_page_in_light_and_dark(page: Page) -> None:
    css = (HERE / CSS).read_text()
    light, dark = css.split("@media (prefers-color-scheme: dark)")
    for name in theme.VARIABLES.values():
        assert f"{name}:" in light
        assert f"{name}:" in dark
    for tag, attributes in page.tags:
        assert not re.search(r"#[0-9a-f]{6}\b", attributes.get("style") or ""), tag


def test_names_are_text_and_never_markup(runs: Path, tmp_path: Path) -> None:
    name = "<script>alert('$x$')</script> &amp; \"q\""
    for seed in range(3):
        run = runs / f"level-{seed}"
        config = json.loads((run / "result.json").read_text())["config"]
        change(run, config=config | {"name": name})
    page = report(runs, tmp_path / "report.html", "--title", "<b>bold</b>")
    assert not page.attributes("script")
    assert not page.attributes("b")
    assert "<b>bold</b>" in page.text
    assert page.text.count(name) > 5


def test_emulated_numbers_are_marked(runs: Path, tmp_path: Path) -> None:
    emulation = {
        "engines": "vLLM 0.32.0",
        "dilation": 20.0,
        "late_share": 0.125,
        "alone_share": None,
        "engine_prefix_hit_share": None,
    }
    change(runs / "level-0", emulation=emulation)
    page = report(runs, tmp_path / "report.html")
    badges = [a for a in page.attributes("span") if "badge" in (a.get("class") or "")]
    assert [a["class"] for a in badges] == ["badge emulated", "badge simulated"]
    assert "real vLLM engines, emulated GPUs" in page.text
    assert "1 of 9 runs are of vLLM 0.32.0" in page.text
    assert "dilation 20" in page.text
    assert "12.5%" in page.text
    assert "too slow" in page.text


def test_a_run_that_is_simulated_says_so(page: Page) -> None:
    (badge,) = [a for a in page.attributes("span") if "badge" in (a.get("class") or "")]
    assert badge["class"] == "badge simulated"


def test_what_a_reader_must_know_is_there(runs: Path, tmp_path: Path) -> None:
    change(runs / "level-1", unstable=True, no_effect=["indexer: nothing asks"])
    page = report(runs, tmp_path / "report.html")
    assert "1 of 9 runs are unstable" in page.text
    assert "no effect in 1 of 9 runs: indexer: nothing asks" in page.text
    for warning in compare([runs]).warnings:
        assert warning in page.text
    assert "python 3" in page.text
    assert "numpy" in page.text


def test_results_without_tables_have_no_figures_of_them(runs: Path, tmp_path: Path) -> None:
    for file in runs.rglob("*.parquet"):
        file.unlink()
    page = report(runs, tmp_path / "report.html")
    names = {attributes.get("id") for _, attributes in page.tags}
    assert "latencies" not in names
    assert "gaps" in names
    assert page.text.count("requests.parquet") >= 3


def test_independent_ranks_have_a_timeline_and_no_stragglers(
    independent: Path, tmp_path: Path
) -> None:
    page = report(independent, tmp_path / "report.html")
    names = {attributes.get("id") for _, attributes in page.tags}
    assert "timelines" in names
    assert "waits" not in names
