from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import pytest

from dpbal.errors import ConfigError
from dpbal.registry import Registry


class Ties(Enum):
    first = "first"
    last = "last"


class Shape:
    pass


@dataclass
class Circle(Shape):
    radius: float = 1.0
    ties: Ties = Ties.first
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.radius < 0:
            raise ValueError(f"radius must not be negative, got {self.radius}")


@pytest.fixture
def shapes() -> Registry[Shape]:
    registry: Registry[Shape] = Registry("shape")
    registry.register("circle", "disc")(Circle)
    return registry


def test_the_decorator_returns_the_class(shapes: Registry[Shape]) -> None:
    assert shapes.register("ring")(Circle) is Circle


def test_a_component_is_built_from_plain_values(shapes: Registry[Shape]) -> None:
    built = shapes.build("disc", {"radius": 2, "ties": "last", "weights": {"a": 1}})
    assert built == Circle(2.0, Ties.last, {"a": 1.0})


def test_fields_that_are_not_given_keep_their_defaults(shapes: Registry[Shape]) -> None:
    assert shapes.build("circle", {}) == Circle()


def test_a_component_can_be_built_again_from_its_description(shapes: Registry[Shape]) -> None:
    circle = Circle(2.0, Ties.last, {"a": 1.0})
    described = shapes.describe(circle)
    assert described.pop("name") in ("circle", "disc")
    assert shapes.build("circle", described) == circle


def test_only_a_component_of_the_family_has_a_description(shapes: Registry[Shape]) -> None:
    with pytest.raises(ConfigError, match=r"unknown shape 'Shape'\. Known: circle, disc"):
        shapes.describe(Shape())


def test_a_name_is_registered_once(shapes: Registry[Shape]) -> None:
    with pytest.raises(ValueError, match="'disc' is registered twice"):
        shapes.register("disc")(Circle)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("circel", {}, "unknown shape 'circel'; did you mean 'circle'"),
        ("circle", {"radus": 1}, "unknown key 'radus'; did you mean 'radius'"),
        ("circle", {"radius": "wide"}, "'wide'.*could not be converted to Float"),
        ("circle", {"ties": "lst"}, "'lst'.*first, last"),
        ("circle", {"radius": "inf"}, "shape.radius must be a finite number, got inf"),
        ("circle", {"weights": {"a": float("nan")}}, "shape.weights.a must be a finite number"),
        ("circle", {"radius": -1}, "radius must not be negative, got -1"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_allowed(
    shapes: Registry[Shape], name: str, params: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        shapes.build(name, params)
    assert "\n" not in str(caught.value)
