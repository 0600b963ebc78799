"""Every component has its file in conf/, and every file there states all of one component."""

from __future__ import annotations

import dataclasses
import doctest
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import dpbal
from dpbal.parts import build
from dpbal.parts import registry as registry_of

CONF = Path(__file__).parents[2] / "conf"
FAMILIES = ("balancer", "signal", "indexer", "transport", "budget", "tracker")


COMPONENTS = [(family, name) for family in FAMILIES for name in registry_of(family)]
FILES = [(family, file) for family in FAMILIES for file in sorted((CONF / family).glob("*.yaml"))]
FILE_IDS = [f"{family}-{file.stem}" for family, file in FILES]


def saved(file: Path) -> tuple[str, dict[str, Any]]:
    values = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(values, dict)
    params = {str(key): value for key, value in values.items() if key not in ("name", "defaults")}
    return str(values["name"]), params


@pytest.mark.parametrize(("family", "name"), COMPONENTS)
def test_yaml_of_a_name_states_every_default(family: str, name: str) -> None:
    file = CONF / family / f"{name}.yaml"
    defaults = OmegaConf.structured(registry_of(family)[name]())
    assert saved(file) == (name, OmegaConf.to_container(defaults, enum_to_str=True))


@pytest.mark.parametrize(("family", "file"), FILES, ids=FILE_IDS)
def test_yaml_builds_and_states_every_field(family: str, file: Path) -> None:
    name, params = saved(file)
    cls = registry_of(family)[name]
    assert list(params) == [field.name for field in dataclasses.fields(cls)]
    assert isinstance(registry_of(family).build(name, params), cls)


@pytest.mark.parametrize(("family", "file"), FILES, ids=FILE_IDS)
def test_yaml_says_what_it_is(family: str, file: Path) -> None:
    first_line = file.read_text().splitlines()[0]
    assert first_line.startswith("# ")
    assert len(first_line) > 20


@pytest.mark.parametrize(("family", "file"), FILES, ids=FILE_IDS)
def test_command_line_chooses_it(family: str, file: Path) -> None:
    config = getattr(dpbal.compose(f"{family}={file.stem}"), family)
    name, params = saved(file)
    assert config == {"name": name, **params}
    assert type(build(family, config)) is registry_of(family)[name]


@pytest.mark.parametrize(("family", "name"), COMPONENTS)
def test_class_is_documented(family: str, name: str) -> None:
    cls = registry_of(family)[name]
    assert cls.__doc__
    assert not cls.__doc__.startswith(cls.__name__ + "(")  # what a dataclass has without one
    for field in dataclasses.fields(cls):
        assert f"    {field.name}: " in cls.__doc__


@pytest.mark.parametrize(("family", "name"), COMPONENTS)
def test_examples_in_its_documentation_run(family: str, name: str) -> None:
    cls = registry_of(family)[name]
    home = vars(sys.modules[cls.__module__])
    for example in doctest.DocTestFinder(recurse=False).find(cls, globs=home):
        results = doctest.DocTestRunner().run(example)
        assert results.failed == 0
