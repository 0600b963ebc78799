"""What the studies' tables say of runs, against intervals worked out by hand."""

from __future__ import annotations

import math

import polars
import pytest

from experiments.effects import (
    POOLED,
    change,
    closed,
    effect,
    remark,
    share,
    shown_change,
    shown_share,
    table,
)

T_2 = 4.30265
"""97.5 % quantile of Student's t at two degrees of freedom, from a printed table."""


def runs(policy: str, values: list[float], **other: object) -> polars.DataFrame:
    """A policy's rows of one cell."""
    rows = [{"policy": policy, "draw": k, "TTFT s": value} for k, value in enumerate(values)]
    same = {"lost": 0, "unstable": False, **other}
    return polars.DataFrame([{**row, **same} for row in rows])


def line(lines: list[str], policy: str) -> list[str]:
    """The cells of a policy's line."""
    (found,) = (text for text in lines if text.startswith(f"| {policy}"))
    return [part.strip() for part in found.strip("|").split("|")]


def test_a_change_and_its_interval_are_those_of_the_logarithms() -> None:
    # ratios 1.1, 1.2 and 1.3: deviation of their logarithms 0.083551, over the root of 3 0.048238
    found = change([1.1, 2.4, 3.9], [1.0, 2.0, 3.0])
    mean = (math.log(1.1) + math.log(1.2) + math.log(1.3)) / 3
    assert found.mean == pytest.approx((1.1 * 1.2 * 1.3) ** (1 / 3) - 1)
    assert found.low == pytest.approx(math.exp(mean - T_2 * 0.048238) - 1, abs=1e-5)
    assert found.high == pytest.approx(math.exp(mean + T_2 * 0.048238) - 1, abs=1e-5)


def test_half_and_double_are_equally_far() -> None:
    assert change([1.0, 4.0], [2.0, 2.0]).mean == pytest.approx(0.0)


def test_which_draw_goes_with_which_matters() -> None:
    ours, theirs = [1.1, 2.2, 4.4], [1.0, 2.0, 4.0]
    paired, crossed = change(ours, theirs), change(ours, theirs[::-1])
    assert (paired.low, paired.high) == pytest.approx((0.1, 0.1))
    assert crossed.low is not None
    assert crossed.low < -0.5
    shuffled = table(
        polars.concat([runs("base", theirs), runs("other", ours)]).reverse(),
        "policy",
        "base",
        ("TTFT s",),
    )
    assert line(shuffled, "other")[1] == "+10.0% [+10.0, +10.0]"


def test_an_effect_pairs_the_rows_of_a_draw() -> None:
    ours, theirs = [1.1, 2.2, 4.4], [1.0, 2.0, 4.0]
    rows = polars.concat([runs("base", theirs), runs("other", ours).reverse(), runs("third", ours)])
    assert effect(rows, "other", "base", "TTFT s") == change(ours, theirs)


def test_an_effect_needs_the_same_draws_of_both() -> None:
    rows = polars.concat([runs("base", [1.0, 2.0, 3.0]), runs("other", [1.0, 2.0])])
    with pytest.raises(ValueError, match="other and base did not run on the same draws"):
        effect(rows, "other", "base", "TTFT s")
    with pytest.raises(ValueError, match="no row has policy absent"):
        effect(rows, "absent", "base", "TTFT s")


def test_a_single_draw_has_no_interval() -> None:
    assert shown_change(change([1.1], [1.0])) == "+10.0%"


def test_the_share_of_the_gap_is_the_mean_over_the_draws() -> None:
    # shares 0.5, 0.6 and 0.7: deviation 0.1, over the root of 3 0.057735
    found = closed([1.5, 1.4, 1.3], [2.0] * 3, [1.0] * 3)
    assert found is not None
    half = T_2 * 0.057735
    assert (found.low, found.mean, found.high) == pytest.approx(
        (0.6 - half, 0.6, 0.6 + half), abs=1e-5
    )
    assert shown_share(found) == "60% [35, 85]"


def test_no_share_is_shown_where_a_draw_has_no_gap() -> None:
    assert closed([1.0, 1.0], [2.0, 1.0], [1.0, 0.99]) is None
    assert shown_share(None) == ""


def test_a_draw_that_is_missing_is_an_error() -> None:
    rows = polars.concat([runs("base", [1.0, 2.0, 3.0]), runs("other", [1.0, 2.0])])
    with pytest.raises(ValueError, match="other and base did not run on the same draws"):
        table(rows, "policy", "base", ("TTFT s",))
    with pytest.raises(ValueError, match="no row has policy absent"):
        table(rows, "policy", "absent", ("TTFT s",))


def test_unstable_and_lost_are_said() -> None:
    other = runs("other", [1.0, 2.0], lost=600).with_columns(unstable=polars.Series([True, False]))
    lines = table(polars.concat([runs("base", [1.0, 2.0]), other]), "policy", "base", ("TTFT s",))
    assert line(lines, "other")[0] == "other (unstable in 1 of 2, 1,200 requests lost)"
    assert line(lines, "base") == ["base", "1.5"]
    assert remark(runs("base", [1.0])) == ""


def test_no_share_of_a_gap_that_an_unstable_baseline_has() -> None:
    sides = [runs("other", [1.5, 1.5]), runs(POOLED, [1.0, 1.0])]
    stable = table(
        polars.concat([runs("base", [2.0, 2.0]), *sides]), "policy", "base", ("TTFT s",), "TTFT s"
    )
    assert line(stable, "other")[-1] == "50% [50, 50]"
    assert line(stable, POOLED)[-1] == ""
    shaky = table(
        polars.concat([runs("base", [2.0, 2.0], unstable=True), *sides]),
        "policy",
        "base",
        ("TTFT s",),
        "TTFT s",
    )
    assert line(shaky, "other")[-1] == ""


def test_no_share_where_requests_were_lost_or_of_the_ends_themselves() -> None:
    own, base, best = runs("other", [1.5, 1.5]), runs("base", [2.0, 2.0]), runs(POOLED, [1.0, 1.0])
    found = share(own, base, best, "TTFT s")
    assert found is not None
    assert found.mean == pytest.approx(0.5)
    losing = [frame.with_columns(lost=1) for frame in (own, base, best)]
    for sides in ((losing[0], base, best), (own, losing[1], best), (own, base, losing[2])):
        assert share(*sides, "TTFT s") is None
    assert share(base, base, best, "TTFT s") is None
    assert share(best, base, best, "TTFT s") is None


def test_a_share_is_called_what_it_is() -> None:
    rows = polars.concat([runs("base", [2.0]), runs("other", [1.5]), runs(POOLED, [1.0])])
    column = ("TTFT s",)
    assert line(table(rows, "policy", "base", column, "TTFT s"), "policy")[-1] == (
        "gap closed, TTFT s"
    )
    assert line(table(rows, "policy", "base", column, "TTFT s", "way to pooled"), "policy")[-1] == (
        "way to pooled, TTFT s"
    )
