from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dpbal.comparison.statistics import holm, paired, welch

VALUES = st.floats(0.1, 10.0)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=9), st.sampled_from([0.8, 0.95]))
def test_the_paired_interval_is_scipys(pairs: list[tuple[float, float]], level: float) -> None:
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    if np.std(np.subtract(ours, theirs)) < 1e-6:
        return
    found = paired(ours, theirs, level, rounding=0.0)
    test = stats.ttest_rel(ours, theirs)
    low, high = test.confidence_interval(level)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)
    assert found.p == pytest.approx(test.pvalue, rel=1e-6, abs=1e-12)


@given(
    st.lists(VALUES, min_size=2, max_size=9),
    st.lists(VALUES, min_size=2, max_size=9),
    st.sampled_from([0.8, 0.95]),
)
def test_welchs_interval_is_scipys(ours: list[float], theirs: list[float], level: float) -> None:
    if min(np.std(ours), np.std(theirs)) < 1e-6:
        return
    found = welch(ours, theirs, level, rounding=0.0)
    test = stats.ttest_ind(ours, theirs, equal_var=False)
    low, high = test.confidence_interval(level)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)
    assert found.p == pytest.approx(test.pvalue, rel=1e-6, abs=1e-12)


def test_a_single_replicate_has_no_interval() -> None:
    assert paired([2.0], [1.0], 0.95, 0.0).low is None
    found = welch([2.0, 4.0], [1.0], 0.95, 0.0)
    assert (found.mean, found.low, found.high, found.p) == (2.0, None, None, None)


def test_what_never_differs_is_no_difference() -> None:
    found = paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 0.95, 1e-9)
    assert (found.mean, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_rounded_last_digits_are_no_difference() -> None:
    ours = [1.0, 2.0, 3.0]
    theirs = [math.nextafter(value, 0.0) for value in ours]
    assert paired(ours, theirs, 0.95, 0.0).p == pytest.approx(0.118, abs=1e-3)
    assert paired(ours, theirs, 0.95, 1e-9).p == 1.0
    assert welch([1.0] * 3, [math.nextafter(1.0, 2.0)] * 3, 0.95, 1e-9).p == 1.0


def test_holm_by_hand() -> None:
    # sorted 0.01 0.02 0.03 0.04: times 4, 3, 2, 1, and none below the one before it
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_the_smallest_pays_for_all(p: list[float]) -> None:
    adjusted = np.array(holm(p))
    assert (adjusted >= p).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    assert adjusted.min() == min(1.0, len(p) * min(p))
