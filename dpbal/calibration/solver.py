"""Non-negative, robust least squares of relative error, and what they cannot tell apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import nnls

UNCERTAIN_SHARE = 0.05
"""A constant is told apart if its standard error moves a step by less than this share."""

COLLINEAR = 1e-6
"""Share of a column that the others must leave over."""

HUBER, BISQUARE = 1.345, 4.685
"""Where residuals begin to count less, and cease to count, in standard deviations."""

ENOUGH = 20
"""Steps of a group that has a standard deviation of its own."""

SETTLED_SHARE = 1e-3
"""Less than this share of a step is no more than rounding, when rounds are over."""

ROUNDS = 30
"""Most times that steps are weighted anew."""


@dataclass
class Solver:
    """Values of all constants while they are found.

    Args:
        names: Of those to find; the others stay.
        values: Of all constants.
        kept: Why one was not found.
        is_settled: False if the values still moved when the last search for them was stopped.
    """

    names: tuple[str, ...]
    values: dict[str, float]
    kept: dict[str, str] = field(default_factory=dict)
    is_settled: bool = True

    def solve(
        self,
        all_names: tuple[str, ...],
        columns: np.ndarray,
        seconds: np.ndarray,
        weights: np.ndarray,
        groups: np.ndarray | None,
        scales: np.ndarray | None = None,
    ) -> None:
        """Find those of ``all_names`` that are asked for and can be told from the steps.

        Args:
            all_names: Of the columns.
            columns: ``[steps, names]``, what each constant is multiplied with.
            seconds: ``[steps]``.
            weights: ``[steps]``.
            groups: ``[steps]``, those among which a step far off the others loses its weight;
                None where all are alike true.
            scales: ``[steps]``, seconds whose shares errors are; those of the steps if None.
        """
        free = [index for index, name in enumerate(all_names) if name in self.names]
        scales = seconds if scales is None else scales
        relative, whole = columns / scales[:, None], seconds / scales
        while free:
            others = [index for index in range(len(all_names)) if index not in free]
            target = whole - relative[:, others] @ [self.values[all_names[at]] for at in others]
            found, robust, is_settled = _least_squares(relative[:, free], target, weights, groups)
            worst = _least_certain(relative[:, free], target, found, robust)
            if worst is None:
                self.values.update(
                    (all_names[at], float(value)) for at, value in zip(free, found, strict=True)
                )
                self.is_settled = self.is_settled and is_settled
                return
            at, why = worst
            self.kept[all_names[free[at]]] = why
            del free[at]


def _least_squares(
    relative: np.ndarray, target: np.ndarray, weights: np.ndarray, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Non-negative values, the weights that steps had in the end, and whether both settled."""
    robust = weights
    found = np.zeros(relative.shape[1])
    for turn in range(ROUNDS):
        before = found
        roots = np.sqrt(robust)
        matrix = relative * roots[:, None]
        sizes = np.linalg.norm(matrix, axis=0)
        sizes[sizes == 0] = 1
        found = nnls(matrix / sizes, target * roots)[0] / sizes
        residuals = np.abs(target - relative @ found)
        if groups is None:
            return found, weights, True
        scale = _scales(residuals, groups)
        if turn < ROUNDS // 3:
            robust = weights * np.minimum(1, HUBER * scale / np.maximum(residuals, 1e-12))
        else:
            robust = weights * np.clip(1 - (residuals / (BISQUARE * scale)) ** 2, 0, None) ** 2
            if np.allclose(found, before, rtol=1e-6, atol=0):
                break
    moved = np.abs(relative @ (found - before)).max()  # of a step's seconds
    return found, robust, bool(moved < SETTLED_SHARE)


def _least_certain(
    relative: np.ndarray, target: np.ndarray, found: np.ndarray, weights: np.ndarray
) -> tuple[int, str] | None:
    """The constant that the steps tell least, and why; None if they tell all of them."""
    roots = np.sqrt(weights)
    matrix = relative * roots[:, None]
    sizes = np.linalg.norm(matrix, axis=0)
    if (sizes == 0).any():
        return int(np.argmin(sizes)), "no step has any of its work"
    unit = matrix / sizes
    left = np.array([_left_over(unit, at) for at in range(unit.shape[1])])
    if left.min() < np.sqrt(COLLINEAR):
        return int(np.argmin(left)), "its work rises and falls with that of others in every step"
    freedom = max(1, int(np.count_nonzero(weights)) - len(found))
    spread = math.sqrt(float(np.average((target - relative @ found) ** 2, weights=weights)))
    uncertain = spread / left / math.sqrt(freedom)  # of a step's seconds
    worst = int(np.argmax(uncertain))
    if uncertain[worst] > UNCERTAIN_SHARE:
        return worst, f"the steps leave {uncertain[worst]:.0%} of a step's time open"
    return None


def _left_over(unit: np.ndarray, at: int) -> float:
    """Length of what the other columns leave of one of length 1."""
    others = np.delete(unit, at, axis=1)
    nearest = others @ np.linalg.lstsq(others, unit[:, at], rcond=None)[0]
    return float(np.linalg.norm(unit[:, at] - nearest))


def _scales(residuals: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Of each step the standard deviation of its group, as its median tells it.

    Steps of one kind may all be off a little, where the form does not fit; they are no outliers.
    A group of few is judged by all steps.
    """
    found = np.full(len(residuals), np.median(residuals))
    for group in np.unique(groups):
        own = groups == group
        if np.count_nonzero(own) >= ENOUGH:
            found[own] = np.median(residuals[own])
    return np.maximum(1.4826 * found, 1e-9)
