from __future__ import annotations

import dataclasses
import doctest
import re
from pathlib import Path

import polars
import pytest

import dpbal
from dpbal.backends.base import Emulation
from dpbal.overrides import CONF
from dpbal.parts import registry
from tests.docs import tables
from tests.docs.pages import PAGES, ROOT, blocks

NUMBER = re.compile(r"-?\d+(\.\d+)?")


@pytest.mark.parametrize(
    ("part", "page"),
    [(part, page) for part, (_, pages) in tables.PARTS.items() for page in pages],
)
def test_generated_parts_are_up_to_date(part: str, page: str) -> None:
    make, _ = tables.PARTS[part]
    _, inside, _ = tables.split(PAGES[page], part)
    written, made = words(inside), words(make())
    # numbers may differ a little: another processor takes other logarithms
    wanted = [pytest.approx(w, rel=0.02, abs=0.01) if isinstance(w, float) else w for w in made]
    assert written == wanted, f"{page} is out of date; type: {tables.COMMAND}"


def words(text: str) -> list[float | str]:
    """The words of a page, numbers as numbers."""
    apart = text.replace(",", "").replace("%", " %").split()
    return [float(word) if NUMBER.fullmatch(word) else word for word in apart]


def test_examples_on_the_first_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    read_results, run, dispatch = blocks("docs/index.md", "python")
    exec(run, {})
    shown = capsys.readouterr().out.splitlines()[-1].split()
    assert [float(number) for number in shown]
    exec(dispatch, {})
    (tmp_path / "outputs").rename("multirun")
    exec(read_results, {})
    assert capsys.readouterr().out.startswith("least_prefill 0 ")


def test_the_example_in_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("README.md", "python")
    exec(example, {})
    verdicts = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert verdicts["E2E mean"].endswith(", better")
    assert verdicts["straggler share"].endswith(", better")


def test_what_a_stale_report_does_is_as_the_page_says() -> None:
    (session,) = blocks("docs/concepts.md", "pycon")
    test = doctest.DocTestParser().get_doctest(session, {}, "concepts", "docs/concepts.md", 0)
    results = doctest.DocTestRunner().run(test)
    assert (results.attempted, results.failed) == (4, 0)


COMPONENTS = ("balancer", "signal", "indexer", "transport", "budget")


@pytest.mark.parametrize("family", [*COMPONENTS, "preset", "workload", "profile", "backend"])
def test_every_choice_has_its_place_on_a_page(family: str) -> None:
    place = {"workload": "workloads", "profile": "profiles"}
    for file in (CONF / family).glob("*.yaml"):
        name = file.stem
        page = name if family == "backend" else place.get(family, "components")
        text = PAGES[f"docs/{page}.md"]
        assert re.search(rf"`(?:\w+=)?{name}`", text), f"{family} {name} is not there"


@pytest.mark.parametrize("family", COMPONENTS)
def test_every_parameter_has_its_place_on_the_page_of_components(family: str) -> None:
    for name, cls in registry(family).items():
        for key in (field.name for field in dataclasses.fields(cls)):
            assert re.search(rf"\b{key}\b", PAGES["docs/components.md"]), f"{name}.{key}"


@pytest.mark.parametrize("name", list(registry("backend")))
def test_every_parameter_of_a_backend_has_its_place_on_its_page(name: str) -> None:
    for field in dataclasses.fields(registry("backend")[name]):
        assert f"`{field.name}`" in PAGES[f"docs/{name}.md"], f"{name}.{field.name}"


def test_everything_a_run_leaves_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = dpbal.run(dpbal.compose("experiment=smoke"), tmp_path)
    columns = [c for file in tmp_path.glob("*.parquet") for c in polars.read_parquet_schema(file)]
    nested = [k for key in ("requests", "gap_closed", "speed", "decisions") for k in result[key]]
    nested += [field.name for field in dataclasses.fields(Emulation)]
    nested += [*result["loss"], *result["loss"]["all"]]
    files = [path.name for path in tmp_path.iterdir()]
    for name in [*result, *nested, *columns, *files]:
        assert f"`{name}`" in PAGES["docs/simulator.md"], f"{name} is not explained"


def test_links_of_the_readme_lead_to_files() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", PAGES["README.md"])
    assert targets
    assert [target for target in targets if not (ROOT / target).is_file()] == []
