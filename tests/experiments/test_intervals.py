"""What the studies' figures draw of an interval."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.effects import change

pytest.importorskip("matplotlib")

from experiments.figures import COLOURS, interval, panels


def drawn(
    ours: list[float], theirs: list[float], across: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places of the line and of the point."""
    _, (panel,) = panels(1)
    interval(panel, 3.0, change(ours, theirs), COLOURS[0], 1.2, across=across)
    return [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in panel.lines]


def test_an_interval_lies_about_its_point() -> None:
    (x, y), (at, middle) = drawn([1.0, 2.0, 4.0], [2.0, 2.0, 2.0], across=False)
    assert x == pytest.approx([3.0, 3.0])
    assert at == pytest.approx([3.0])
    assert middle == pytest.approx([1.0])
    # twofold either way: deviation of the logarithms log 2, over the root of 3, times t
    assert np.log2(y) == pytest.approx([-4.30265 / 3**0.5, 4.30265 / 3**0.5], abs=1e-5)
    (across, place), _ = drawn([1.0, 2.0, 4.0], [2.0, 2.0, 2.0], across=True)
    assert across == pytest.approx(y)
    assert place == pytest.approx(x)


def test_a_single_draw_is_a_point_and_no_whisker_to_no_change() -> None:
    (_, y), (_, middle) = drawn([1.5], [1.0], across=False)
    assert y == pytest.approx([1.5, 1.5])
    assert middle == pytest.approx([1.5])
