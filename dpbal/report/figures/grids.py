"""Sorts the combinations of a setting into grids: two families of parts against each other."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import combinations as pairs
from typing import TypeAlias

from dpbal.comparison.grouping import Combination, shown

FAMILIES = ("balancer", "transport", "budget", "signal", "ledger")
"""Of the policy, in the order in which pairs of them are tried."""
MOST_CELLS = 200
MOST_GRIDS = 4
"""Of a setting: one for each value of the other parts."""

Names: TypeAlias = "dict[str, list[str]]"
"""By family, what the part of each combination is called."""


@dataclass(frozen=True)
class Grid:
    """Combinations that differ in two families.

    Attributes:
        families: Of the rows and of the columns.
        rest: The other parts, where several grids differ in them, such as ``budget=level``.
        rows: Names of the parts.
        columns: Names of the parts.
        cells: The combination of each pair that ran.
        also: Other families in which its cells differ.
    """

    families: tuple[str, str]
    rest: str
    rows: list[str]
    columns: list[str]
    cells: dict[tuple[str, str], Combination]
    also: tuple[str, ...]


def grids(everyone: list[Combination]) -> list[Grid]:
    """All grids of the first pair of families that leaves one combination a cell.

    One grid where such a pair is there; else one for each value of the other parts, in the order of
    their first combinations, of the first pair that gives few of them. None is a mean over parts.
    """
    names = {family: _parts(everyone, family) for family in FAMILIES}
    both = list(pairs(FAMILIES, 2))
    found = [_made(everyone, names, pair, [""] * len(everyone)) for pair in both]
    split = [_made(everyone, names, pair, _split(names, pair)) for pair in both]
    found += sorted(split, key=_left_out)
    return next((made for made in found if any(map(_is_grid, made))), [])


def _left_out(made: list[Grid]) -> int:
    return max(0, len(made) - MOST_GRIDS)


def _is_grid(one: Grid) -> bool:
    height, width = len(one.rows), len(one.columns)
    # fewer cells could be one family that is called by two names
    return min(height, width) > 1 and len(one.cells) >= height + width - 1


def _split(names: Names, pair: tuple[str, str]) -> list[str]:
    """For each combination what it is of the families that go with neither of the two."""
    free = [family for family in FAMILIES if not any(_goes_with(names, family, p) for p in pair)]
    columns = [[_typed(family, name) for name in names[family]] for family in free]
    return [", ".join(values) for values in zip(*columns, strict=True)]


def _typed(family: str, name: str) -> str:
    is_setting = "=" in name.partition(" ")[0]  # a ledger has no name, but a mode
    return f"{family}.{name}" if is_setting else f"{family}={name}"


def _goes_with(names: Names, family: str, other: str) -> bool:
    """Whether one part of another family never has two of this, as balancers bring their signal."""
    return len(set(zip(names[family], names[other], strict=True))) == len(set(names[other]))


def _made(
    everyone: list[Combination], names: Names, pair: tuple[str, str], rests: list[str]
) -> list[Grid]:
    """A grid for each of the rests; none if two combinations have one cell."""
    made = []
    for rest in dict.fromkeys(rests):
        places = [place for place, other in enumerate(rests) if other == rest]
        rows, columns = ([names[family][place] for place in places] for family in pair)
        cells = dict(
            zip(zip(rows, columns, strict=True), (everyone[p] for p in places), strict=True)
        )
        if len(cells) < len(places):
            return []
        sides = list(dict.fromkeys(rows)), list(dict.fromkeys(columns))
        differing = [f for f in FAMILIES if len({names[f][place] for place in places}) > 1]
        also = tuple(family for family in differing if family not in pair)
        if len(cells) > 1 and len(sides[0]) * len(sides[1]) <= MOST_CELLS:
            made.append(Grid(pair, rest, *sides, cells, also))
    return made


def _parts(everyone: list[Combination], family: str) -> list[str]:
    """For each combination what its part of a family is called, with what tells it from others."""
    settings = [
        {key: value for key, value in one.policy.items() if key.partition(".")[0] == family}
        for one in everyone
    ]
    names = [
        one.choices.get(family, str(own.pop(f"{family}.name", "")))
        for one, own in zip(everyone, [dict(own) for own in settings], strict=True)
    ]
    labels = []
    for name, own in zip(names, settings, strict=True):
        alike = [other for label, other in zip(names, settings, strict=True) if label == name]
        differing = [key for key in own if len({other.get(key) for other in alike}) > 1]
        told: list[tuple[str, Hashable]] = [(key.partition(".")[2], own[key]) for key in differing]
        labels.append(" ".join([name, *(f"{k}={shown(v)}" for k, v in told)]).strip() or family)
    return labels
