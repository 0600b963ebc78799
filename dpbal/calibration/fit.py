"""Fits the constants of a profile to steps, and says how far the steps are off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpbal.calibration.samples import KINDS, Samples
from dpbal.calibration.solver import Solver
from dpbal.errors import ConfigError
from dpbal.step_time import StepTime

LOCAL = (
    "fixed_s",
    "prefill_s_per_token",
    "decode_s_per_seq",
    "kv_s_per_token",
    "attention_s_per_pair",
)
COMMON = ("common_fixed_s", "common_s_per_token")
PENALTY = "mixed_penalty_s"
ALL = (*LOCAL, *COMMON, PENALTY)

FEWEST_STEPS = 20

NOTHING_S = 1e-9
"""Seconds that are rounding of sums."""

ROUNDS = 30
"""Most times that the slowest ranks are looked for."""


@dataclass(frozen=True)
class Error:
    """Relative error of a part of the steps of a kind.

    Attributes:
        part: ``step``, ``local`` or ``common``.
        kind: One of ``KINDS``.
        steps: How many.
        mean: Of the absolute relative errors.
        largest: Of them; steps that the fit threw out as outliers are counted as well.
    """

    part: str
    kind: str
    steps: int
    mean: float
    largest: float


@dataclass(frozen=True)
class Fit:
    """What came out.

    Attributes:
        values: The constants that were asked for, in seconds.
        kept: Why a constant could not be told from the steps, so that its prior value was kept.
        errors: Of whole steps and, where they were measured, of their parts.
        is_settled: False if the values still moved when the search for them was stopped.
    """

    values: dict[str, float]
    kept: dict[str, str]
    errors: tuple[Error, ...]
    is_settled: bool = True


def fit(
    samples: Samples, names: tuple[str, ...], prior: StepTime, *, is_robust: bool = True
) -> Fit:
    """Fit constants of a profile; the others, and what the steps do not tell, are the prior's.

    Where each rank's own part was measured, it and the rest of the step are fitted one by one.
    Where only whole steps were, the constants of both follow from ``A + m tokens / N + max over
    ranks of the local time``: the slowest rank of each step is the one that the last fit says, and
    the fit is made again until none changes.

    Args:
        samples: The steps.
        names: Of the constants to fit.
        prior: What is known before.
        is_robust: Whether steps far off the others lose their weight, as measured steps that
            something else held up must; steps of tables are all alike true.

    Raises:
        ConfigError: If there are too few steps.
    """
    if len(samples) < FEWEST_STEPS:
        raise ConfigError(
            f"{len(samples)} steps are too few for a fit; give at least {FEWEST_STEPS}, "
            "better some hundred of each kind"
        )
    solver = Solver(names, {name: float(getattr(prior, name)) for name in ALL})
    local, weights = _local_columns(samples), samples.weights
    common = _common_columns(samples, prior.pad_to_largest)
    groups = samples.kinds if is_robust else None
    if samples.local_s is None:
        _fit_whole(solver, samples, local, common, groups)
    else:
        busy = samples.is_busy
        steps = np.nonzero(busy)[0]
        solver.solve(
            LOCAL,
            local[busy],
            samples.local_s[busy],
            weights[steps],
            None if groups is None else groups[steps],
        )
        _fit_rest(solver, samples, samples.local_s, common, groups)
    values = {name: solver.values[name] for name in names}
    errors = tuple(_errors(samples, local, common, solver.values))
    return Fit(values, solver.kept, errors, solver.is_settled)


def _fit_rest(
    solver: Solver,
    samples: Samples,
    local_s: np.ndarray,
    common: np.ndarray,
    groups: np.ndarray | None,
) -> None:
    """Fit what steps last longer than the own part of their slowest rank."""
    rest_s = samples.step_s - np.where(samples.is_busy, local_s, 0).max(axis=1)
    rows = rest_s >= -NOTHING_S
    if not rows.any():
        why = "every step is shorter than its slowest rank's own part"
        solver.kept.update((name, why) for name in (*COMMON, PENALTY) if name in solver.names)
        return
    rest_s = np.where(rest_s > NOTHING_S, rest_s, 0)[rows]
    solver.solve(
        (*COMMON, PENALTY),
        common[rows],
        rest_s,
        samples.weights[rows],
        None if groups is None else groups[rows],
        scales=np.where(rest_s > 0, rest_s, samples.step_s[rows]),  # nothing has no shares
    )


def _fit_whole(
    solver: Solver,
    samples: Samples,
    local: np.ndarray,
    common: np.ndarray,
    groups: np.ndarray | None,
) -> None:
    """Fit whole steps, of which only the slowest rank shows."""
    steps = np.arange(len(samples))
    slowest = np.full(len(samples), -1)
    prior = dict(solver.values)
    for _ in range(ROUNDS):
        before = slowest
        local_s = np.where(samples.is_busy, local @ [solver.values[name] for name in LOCAL], -1)
        slowest = local_s.argmax(axis=1)
        if (slowest == before).all():
            return
        solver.values.update(prior)
        solver.kept.clear()
        solver.is_settled = True
        columns = np.concatenate([local[steps, slowest], common], axis=1)
        solver.solve(ALL, columns, samples.step_s, samples.weights, groups)
    solver.is_settled = False


def _local_columns(samples: Samples) -> np.ndarray:
    """``[steps, ranks, 5]``, what the constants of ``LOCAL`` are multiplied with."""
    ones = np.ones((*samples.work.shape[:2], 1))
    return np.concatenate([ones, samples.work], axis=2)


def _common_columns(samples: Samples, pad_to_largest: bool) -> np.ndarray:
    """``[steps, 3]``, what those of ``COMMON`` and the penalty are multiplied with."""
    is_mixed = samples.kinds == KINDS.index("mixed")
    tokens = samples.largest_tokens if pad_to_largest else samples.tokens_a_rank
    return np.stack([np.ones(len(samples)), tokens, is_mixed], axis=1).astype(float)


def _errors(
    samples: Samples, local: np.ndarray, common: np.ndarray, values: dict[str, float]
) -> list[Error]:
    local_s = local @ [values[name] for name in LOCAL]
    slowest_s = np.where(samples.is_busy, local_s, 0).max(axis=1)
    common_s = common @ [values[name] for name in (*COMMON, PENALTY)]
    parts = {"step": ((slowest_s + common_s)[:, None], samples.step_s[:, None])}
    if samples.local_s is not None:
        parts["local"] = local_s, np.where(samples.is_busy, samples.local_s, 0)
        given_s = parts["local"][1].max(axis=1)
        parts["common"] = common_s[:, None], (samples.step_s - given_s)[:, None]
    found = []
    for part, (fitted, measured) in parts.items():
        for number, kind in enumerate(KINDS):
            rows = samples.kinds == number
            counted = measured[rows] > NOTHING_S
            if counted.any():
                errors = np.abs(fitted[rows][counted] / measured[rows][counted] - 1)
                found.append(
                    Error(part, kind, int(rows.sum()), float(errors.mean()), float(errors.max()))
                )
    return found
