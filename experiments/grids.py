"""Tables of one metric over many cells: policies on one side, what is varied on the other."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

import polars

from experiments.effects import change, remark, share, shown_change, shown_share

Shown = Callable[[polars.DataFrame, polars.DataFrame], str]
"""What a cell says of a policy's runs beside its baseline's, on the same draws."""


def grid(
    rows: polars.DataFrame,
    down: str,
    across: str,
    policy: str,
    baseline: str | None,
    shown: Shown,
) -> list[str]:
    """Lines of a Markdown table.

    Args:
        rows: One for each policy, cell and draw, with ``draw``, ``lost`` and ``unstable``.
        down: Column of which each value has a line.
        across: Column of which each value has a column.
        policy: Which of the two names policies.
        baseline: The one that all others of its cell are compared with, if they are.
        shown: What is said of a cell.
    """
    if policy not in (down, across):
        raise ValueError(f"{policy} is neither {down} nor {across}")
    other = across if policy == down else down
    places = rows[down].unique(maintain_order=True)
    heads = rows[across].unique(maintain_order=True)
    lines = [f"| {down} | {' | '.join(map(str, heads))} |", "|---" * (len(heads) + 1) + "|"]
    for place in places:
        cells = []
        for head in heads:
            own = _of(_of(rows, down, place), across, head)
            if own.is_empty():
                cells.append("")
                continue
            base = own
            if baseline is not None:
                base = _of(_of(rows, other, own[other][0]), policy, baseline)
            if own["draw"].to_list() != base["draw"].to_list():
                raise ValueError(f"{place}, {head}: not on the same draws as {baseline}")
            cells.append(shown(own, base) + remark(own))
        lines.append(f"| {place} | {' | '.join(cells)} |")
    return [*lines, ""]


def changes(column: str) -> Shown:
    """Means of the baseline, and by how much the others differ from it."""

    def shown(own: polars.DataFrame, base: polars.DataFrame) -> str:
        if own.equals(base):
            return f"{fmean(own[column]):.3g}"
        return shown_change(change(own[column].to_list(), base[column].to_list()))

    return shown


def means(column: str) -> Shown:
    """Means of all."""

    def shown(own: polars.DataFrame, base: polars.DataFrame) -> str:
        return f"{fmean(own[column]):.3g}"

    return shown


def shares(column: str, best: polars.DataFrame, keys: tuple[str, ...]) -> Shown:
    """Shares of the gap between the baseline and the best that are closed, where there are any.

    Args:
        column: Of what.
        best: Rows of the pooled machine.
        keys: Columns that name a cell, in which all rows of one are alike.
    """

    def shown(own: polars.DataFrame, base: polars.DataFrame) -> str:
        end = best
        for key in keys:
            end = _of(end, key, own[key][0])
        return shown_share(share(own, base, end, column))

    return shown


def _of(rows: polars.DataFrame, column: str, value: object) -> polars.DataFrame:
    return rows.filter(polars.col(column) == value).sort("draw")
