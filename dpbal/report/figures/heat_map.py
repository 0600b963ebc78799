"""Two families of parts against each other: what each pair of them is worth."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import combinations as pairs
from statistics import fmean
from typing import TypeAlias

from matplotlib.patches import Rectangle

from dpbal.comparison.comparison import Table
from dpbal.comparison.grouping import Block, Combination, shown
from dpbal.report import theme
from dpbal.report.contents import MOST_SETTINGS, Contents
from dpbal.report.figures.base import Drawing
from dpbal.report.figures.labels import anchor

FAMILIES = ("balancer", "transport", "budget", "signal", "ledger")
"""Of the policy; the first two that make a grid are drawn."""
MOST_CELLS = 200
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
class Grid:
    """What is shown of a setting.

    Attributes:
        families: Of the rows and of the columns.
        rows: Names of the parts.
        columns: Names of the parts.
        cells: The combinations of each pair that ran.
    """

    families: tuple[str, str]
    rows: list[str]
    columns: list[str]
    cells: dict[tuple[str, str], list[Combination]]


@dataclass(frozen=True)
class Value:
    """The number of a cell.

    Attributes:
        share: Of which 1 is 100 %.
        is_better: Whether it is good news.
        is_unstable: Whether any run in it was.
    """

    share: float
    is_better: bool
    is_unstable: bool


@dataclass(frozen=True)
class Map:
    """One figure: what its numbers are, and the numbers.

    Attributes:
        name: Of its anchor.
        title: What the numbers are, in a few words.
        meaning: A sentence.
        values: Of the cells that have one.
    """

    name: str
    title: str
    meaning: str
    values: dict[tuple[str, str], Value]


@theme.styled
def draw(contents: Contents) -> list[Drawing]:
    """For each setting with a grid the gap closed, or the changes of E2E and TTFT."""
    drawings: list[Drawing] = []
    for block, base in zip(contents.blocks, contents.baselines, strict=True):
        found = grid(sorted(block.combinations, key=lambda one, base=base: one is not base))  # type: ignore[misc]
        maps = maps_of(contents, block, found) if found else []
        if found is None or not maps:
            continue
        place = sum(each.name.startswith(f"heat-{maps[0].name}") for each in drawings)
        if place == MOST_SETTINGS:
            break
        over = f"{found.families[0]} x {found.families[1]}"
        for one in maps:
            drawings.append(
                Drawing(
                    anchor(f"heat-{one.name}", place),
                    f"{one.title}: {over}" + (f" ({block.label})" if block.label else ""),
                    f"{one.meaning} {_caption(found, one)}",
                    _drawn(found, one),
                    is_wide=len(found.columns) > MOST_NARROW,
                )
            )
    return drawings


def grid(everyone: list[Combination]) -> Grid | None:
    """The first two families of which two and more ran, in pairs enough to be read as a grid."""
    for families in pairs(FAMILIES, 2):
        rows, columns = (_parts(everyone, family) for family in families)
        cells: dict[tuple[str, str], list[Combination]] = {}
        for key, one in zip(zip(rows, columns, strict=True), everyone, strict=True):
            cells.setdefault(key, []).append(one)
        sides = list(dict.fromkeys(rows)), list(dict.fromkeys(columns))
        height, width = map(len, sides)
        # fewer could be one family that is called by two names
        is_grid = min(height, width) > 1 and len(cells) >= height + width - 1
        if is_grid and height * width <= MOST_CELLS:
            return Grid(families, *sides, cells)
    return None


def maps_of(contents: Contents, block: Block, found: Grid) -> list[Map]:
    """The gap closed where every pair knows it, else the changes against the baseline."""
    gaps = _values(found, lambda one: _gap(contents, one), lower_is_better=False)
    gap = Map(
        "gap",
        "Gap closed",
        "How much of the way from round robin (0 %) to the pooled reference (100 %) mean E2E goes.",
        gaps,
    )
    table = _table(contents, block)
    if len(gaps) == len(found.cells) or (gaps and table is None):
        return [gap]
    if table is None:
        return []
    maps = []
    for name, label in (("e2e_mean", "E2E"), ("ttft_mean", "TTFT")):
        changes = _changes(table, name)
        values = _values(found, lambda one, found=changes: found.get(_key(one)))  # type: ignore[misc]
        meaning = f"Change of mean {label} against {table.baseline.label}; negative is better."
        maps.append(Map(label.lower(), f"Change of {label}", meaning, values))
    return [one for one in maps if one.values]


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
        told = [f"{key.partition('.')[2]}={shown(own[key])}" for key in differing]
        labels.append(" ".join([name, *told]).strip() or family)
    return labels


def _values(
    found: Grid, of: Callable[[Combination], float | None], lower_is_better: bool = True
) -> dict[tuple[str, str], Value]:
    """Means over the combinations of each cell that have a value."""
    values = {}
    for key, cell in found.cells.items():
        told = [value for one in cell if (value := of(one)) is not None]
        if told:
            mean = fmean(told)
            is_unstable = any(run.result.unstable for one in cell for run in one.runs)
            values[key] = Value(mean, (mean < 0) == lower_is_better, is_unstable)
    return values


def _gap(contents: Contents, one: Combination) -> float | None:
    gaps = [(contents.raw(run).get("gap_closed") or {}).get("e2e_mean") for run in one.runs]
    told = [gap for gap in gaps if gap is not None]
    return fmean(told) if told else None


def _table(contents: Contents, block: Block) -> Table | None:
    """The comparison of a block; none where what is compared did not run under one setting."""
    if contents.comparison is None or len({_key(one)[1] for one in block.combinations}) > 1:
        return None
    keys = {_key(one) for one in block.combinations}
    tables = contents.comparison.tables
    return next((table for table in tables if _key(table.baseline) in keys), None)


def _changes(table: Table, metric: str) -> dict[Key, float]:
    found = {_key(table.baseline): 0.0}
    for other in table.others:
        for effect in other.effects:
            if effect.metric.name == metric and effect.ratio is not None:
                found[_key(other.combination)] = effect.ratio.mean
    return found


def _key(one: Combination) -> Key:
    return frozenset(one.policy.items()), frozenset(one.setting.items())


def _drawn(found: Grid, one: Map) -> str:
    rows, columns = found.rows, found.columns
    width_in = 0.4 + 0.07 * max(map(len, rows)) + CELL_IN[0] * len(columns)
    slant = max(map(len, columns)) > CHARACTERS
    height_in = 0.35 + CELL_IN[1] * len(rows) + (0.05 * max(map(len, columns)) if slant else 0)
    least_in = (theme.WIDE if len(columns) > MOST_NARROW else theme.SMALL)[0]
    figure, (axes,) = theme.canvas((max(least_in, width_in), max(1.2, height_in)))
    largest = max(WEAKEST, *(abs(value.share) for value in one.values.values()))
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


def _caption(found: Grid, one: Map) -> str:
    text = "Blue is better, orange worse."
    if len(one.values) < len(found.rows) * len(found.columns):
        text += " Blank: not run, or not known."
    most = max(map(len, found.cells.values()))
    if most > 1:
        text += f" A cell is the mean of up to {most} combinations that differ in other parts."
    settings = {_key(each)[1] for cell in found.cells.values() for each in cell}
    if len(settings) > 1:
        text += " The cells ran under several settings, which differ in more than these parts."
    if any(value.is_unstable for value in one.values.values()):
        text += " * a run was unstable, so the value depends on its length."
    return text
