"""Two families of parts against each other: what each pair of them is worth."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from matplotlib.patches import Rectangle

from dpbal.comparison.comparison import Table
from dpbal.comparison.grouping import Block, Combination
from dpbal.report import theme
from dpbal.report.contents import MOST_SETTINGS, Contents
from dpbal.report.figures.base import Drawing
from dpbal.report.figures.gap import closed
from dpbal.report.figures.grids import MOST_GRIDS, Grid, grids
from dpbal.report.figures.labels import anchor

STRONGEST = 0.5
"""Opacity of the largest value's colour: the number in it stays legible, in the dark as well."""
WEAKEST = 0.2
"""The colours are those of at least this range, so that small values stay pale."""
CELL_IN = (0.72, 0.3)
CHARACTERS = 11
"""A longer name of a column does not fit over it, and is slanted."""
MOST_NARROW = 6
"""Columns that fit on a phone."""

Key: TypeAlias = "tuple[Hashable, Hashable]"


@dataclass(frozen=True)
class Value:
    """The number of a cell.

    Attributes:
        share: Of which 1 is 100 %.
        is_better: Whether it is good news.
        is_unstable: Whether any of its runs was.
    """

    share: float
    is_better: bool
    is_unstable: bool


@dataclass(frozen=True)
class Map:
    """One figure: what its numbers are, and the numbers.

    Attributes:
        grid: Where they are.
        name: Of its anchor.
        title: What the numbers are, in a few words.
        meaning: A sentence.
        values: Of the cells that have one.
    """

    grid: Grid
    name: str
    title: str
    meaning: str
    values: dict[tuple[str, str], Value]


@theme.styled
def draw(contents: Contents) -> list[Drawing]:
    """For each setting with a grid the gap closed, or the changes of E2E and TTFT."""
    drawings: list[Drawing] = []
    settings = 0
    for block, base in zip(contents.blocks, contents.baselines, strict=True):
        found = grids(sorted(block.combinations, key=lambda one, base=base: one is not base))  # type: ignore[misc]
        maps = maps_of(contents, block, found[:MOST_GRIDS])
        if not maps:
            continue
        if settings == MOST_SETTINGS:
            break
        settings += 1
        for one in maps:
            name = f"heat-{one.name}"
            place = sum(each.name.startswith(name) for each in drawings)
            alike = [each for each in maps if each.name == one.name]
            drawings.append(
                Drawing(
                    anchor(name, place),
                    _title(one, block),
                    f"{one.meaning} {_caption(one, alike, block, base)}",
                    _drawn(one, _largest(alike)),
                    is_wide=len(one.grid.columns) > MOST_NARROW,
                )
            )
    return drawings


def maps_of(contents: Contents, block: Block, found: list[Grid]) -> list[Map]:
    """The gap closed where every pair knows it, else the changes against the baseline."""
    meaning = (
        "How much of the way from round robin (0 %) to the pooled reference (100 %) mean E2E goes."
    )
    gaps = [
        Map(
            one,
            "gap",
            "Gap closed",
            meaning,
            _values(one, lambda each: _gap(contents, each), lower_is_better=False),
        )
        for one in found
    ]
    table = _table(contents, block)
    if table is None or all(len(one.values) == len(one.grid.cells) for one in gaps):
        return [one for one in gaps if one.values]
    maps = []
    for name, label in (("e2e_mean", "E2E"), ("ttft_mean", "TTFT")):
        changes = _changes(table, name)
        meaning = f"Change of mean {label} against {table.baseline.label}; negative is better."
        for one in found:
            values = _values(one, lambda each, changes=changes: changes.get(_key(each)))  # type: ignore[misc]
            maps.append(Map(one, label.lower(), f"Change of {label}", meaning, values))
    return [one for one in maps if one.values]


def _values(
    found: Grid, of: Callable[[Combination], float | None], lower_is_better: bool = True
) -> dict[tuple[str, str], Value]:
    """Of the cells whose combination has one."""
    values = {}
    for key, one in found.cells.items():
        value = of(one)
        if value is not None:
            is_unstable = any(run.result.unstable for run in one.runs)
            values[key] = Value(value, (value < 0) == lower_is_better, is_unstable)
    return values


def _gap(contents: Contents, one: Combination) -> float | None:
    shares = closed(contents, one)["e2e_mean"]
    return fmean(shares) if shares else None


def _table(contents: Contents, block: Block) -> Table | None:
    """The comparison of a block; none where what is compared did not run under one setting."""
    if contents.comparison is None or len({_key(one)[1] for one in block.combinations}) > 1:
        return None
    ran = {id(one) for one in block.combinations}
    tables = contents.comparison.tables
    return next((table for table in tables if id(table.baseline) in ran), None)


def _changes(table: Table, metric: str) -> dict[Key, float]:
    found = {_key(table.baseline): 0.0}
    for other in table.others:
        for effect in other.effects:
            if effect.metric.name == metric and effect.ratio is not None:
                found[_key(other.combination)] = effect.ratio.mean
    return found


def _key(one: Combination) -> Key:
    return frozenset(one.policy.items()), frozenset(one.setting.items())


def _largest(maps: list[Map]) -> float:
    """Of the values that share their colours."""
    return max(WEAKEST, *(abs(value.share) for one in maps for value in one.values.values()))


def _drawn(one: Map, largest: float) -> str:
    rows, columns = one.grid.rows, one.grid.columns
    width_in = 0.4 + 0.07 * max(map(len, rows)) + CELL_IN[0] * len(columns)
    slant = max(map(len, columns)) > CHARACTERS
    height_in = 0.35 + CELL_IN[1] * len(rows) + (0.05 * max(map(len, columns)) if slant else 0)
    least_in = (theme.WIDE if len(columns) > MOST_NARROW else theme.SMALL)[0]
    figure, (axes,) = theme.canvas((max(least_in, width_in), max(1.2, height_in)))
    for (row, column), value in one.values.items():
        x, y = columns.index(column), rows.index(row)
        colour = theme.BLUE if value.is_better else theme.ORANGE
        alpha = STRONGEST * abs(value.share) / largest
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, alpha=alpha))
        axes.text(x, y, _number(value, one), ha="center", va="center", color=theme.FOREGROUND)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns)
    axes.xaxis.tick_top()
    if slant:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="left", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return theme.to_svg(figure)


def _number(value: Value, one: Map) -> str:
    mark = "*" if value.is_unstable else ""
    percent = round(100 * value.share, 0 if one.name == "gap" else 1) or 0.0  # no -0
    return (f"{percent:.0f} %" if one.name == "gap" or not percent else f"{percent:+.1f} %") + mark


def _title(one: Map, block: Block) -> str:
    under = ", ".join(text for text in (one.grid.rest, block.label) if text)
    over = " x ".join(one.grid.families)
    return f"{one.title}: {over}" + (f" ({under})" if under else "")


def _caption(one: Map, alike: list[Map], block: Block, base: Combination) -> str:
    """How to read a map, which may be one of several like it."""
    grid = one.grid
    text = "Blue is better, orange worse."
    if one.name != "gap" and not _holds(grid, base):
        is_first = _holds(alike[0].grid, base)
        text += f" The baseline is in {'the first map' if is_first else 'no map'}."
    if len(one.values) < len(grid.rows) * len(grid.columns):
        text += " Blank: not run, or not known."
    drawn = sum(len(each.grid.cells) for each in alike)
    if drawn < len(block.combinations):
        text += f" The maps show {drawn} of {len(block.combinations)} combinations."
    if grid.also:
        text += f" Cells differ in {' and '.join(grid.also)} as well."
    if len({_key(each)[1] for each in grid.cells.values()}) > 1:
        text += " The cells ran under several settings, which differ in more than these parts."
    if any(value.is_unstable for value in one.values.values()):
        text += " * a run was unstable, so the value depends on its length."
    return text


def _holds(grid: Grid, base: Combination) -> bool:
    return any(one is base for one in grid.cells.values())
