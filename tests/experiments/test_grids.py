"""Tables of one metric over many cells."""

from __future__ import annotations

from typing import Any

import polars
import pytest

from experiments.grids import changes, grid, shares


def runs(policy: str, values: list[float], ranks: int = 8, **other: Any) -> polars.DataFrame:
    """A policy's rows of one cell."""
    rows = [
        {"policy": policy, "ranks": ranks, "draw": draw, "E2E s": value}
        for draw, value in enumerate(values)
    ]
    same = {"lost": 0, "unstable": False, **other}
    return polars.DataFrame([{**row, **same} for row in rows])


def test_each_cell_is_compared_with_its_own_baseline() -> None:
    rows = polars.concat(
        [
            runs("base", [1.0, 2.0]),
            runs("other", [1.1, 2.2], lost=1),
            runs("base", [10.0, 20.0], ranks=16),
        ]
    )
    assert grid(rows, "policy", "ranks", "policy", "base", changes("E2E s")) == [
        "| policy | 8 | 16 |",
        "|---|---|---|",
        "| base | 1.5 | 15 |",
        "| other | +10.0% [+10.0, +10.0] (2 requests lost) |  |",
        "",
    ]


def test_a_draw_that_is_missing_is_an_error() -> None:
    rows = polars.concat([runs("base", [1.0, 2.0]), runs("other", [1.0])])
    with pytest.raises(ValueError, match="other, 8: not on the same draws as base"):
        grid(rows, "policy", "ranks", "policy", "base", changes("E2E s"))


@pytest.mark.parametrize(
    ("base", "own", "best", "shown"),
    [
        ({}, {}, {}, "50% [50, 50]"),
        ({}, {"unstable": True}, {}, "50% [50, 50] (unstable in 2 of 2)"),
        ({"unstable": True}, {}, {}, ""),
        ({"lost": 1}, {}, {}, ""),
        ({}, {"lost": 1}, {}, "(2 requests lost)"),
        ({}, {}, {"lost": 1}, ""),
    ],
)
def test_shares_are_of_a_stable_baseline_and_of_runs_that_lost_nothing(
    base: dict[str, Any], own: dict[str, Any], best: dict[str, Any], shown: str
) -> None:
    rows = polars.concat([runs("base", [2.0, 2.0], **base), runs("other", [1.5, 1.5], **own)])
    pooled = runs("pooled", [1.0, 1.0], **best)
    share = shares("E2E s", pooled, ("ranks",))
    lines = grid(rows, "policy", "ranks", "policy", "base", share)
    assert [part.strip() for part in lines[-2].strip("|").split("|")] == ["other", shown]
