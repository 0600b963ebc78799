"""How much policies differ on the same requests: paired changes, 95 % t intervals over draws."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np
import polars

from dpbal.comparison.statistics import Estimate, paired
from dpbal.results import share_closed
from experiments.cells import LATENCIES

LEVEL = 0.95
ROUNDING = 1e-9

POOLED = "pooled"
"""Name of the rows of the pooled machine."""


def change(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Relative change, from the mean of the logarithms of the ratios within the pairs.

    Args:
        ours: A positive value for each draw.
        theirs: The baseline's, of the same draws.
    """
    return _exponential(paired(np.log(ours).tolist(), np.log(theirs).tolist(), LEVEL, ROUNDING))


def effect(rows: polars.DataFrame, policy: str, baseline: str, column: str) -> Estimate:
    """Relative change of a policy's rows from a baseline's on the same draws.

    Args:
        rows: Of one cell: one for each policy and draw, with ``policy`` and ``draw``.
        policy: Its name.
        baseline: The name of the one that it is compared with.
        column: Of what.

    Raises:
        ValueError: If one of the two has no rows, or they did not run on the same draws.
    """
    own, base = (_draws(rows, "policy", name) for name in (policy, baseline))
    _check_draws(own, base, policy, baseline)
    return change(own[column].to_list(), base[column].to_list())


def closed(ours: Sequence[float], worst: Sequence[float], best: Sequence[float]) -> Estimate | None:
    """Share of the gap that is closed, mean over the draws; None where one has no gap."""
    shares = [share_closed(*values) for values in zip(ours, worst, best, strict=True)]
    known = [share for share in shares if share is not None]
    if len(known) < len(shares):
        return None
    return paired(known, [0.0] * len(known), LEVEL, ROUNDING)


def share(
    own: polars.DataFrame, base: polars.DataFrame, best: polars.DataFrame, column: str
) -> Estimate | None:
    """Share of the way from a baseline's runs to the best that a policy's go.

    Args:
        own: The policy's rows, one for each draw.
        base: The baseline's, on the same draws.
        best: Those of the pooled machine, on the same draws.
        column: Of what.

    Returns:
        None for the baseline and the best themselves, where the baseline was unstable, where any
        lost requests, and where a draw has no gap.
    """
    sides = (own, base, best)
    if own.equals(base) or own.equals(best) or base["unstable"].any():
        return None
    if any(side["lost"].sum() for side in sides):
        return None
    return closed(*(side[column].to_list() for side in sides))


def shown_change(estimate: Estimate) -> str:
    """``+3.2% [+1.0, +5.4]``."""
    return _shown(estimate, "+z.1f")


def shown_share(estimate: Estimate | None) -> str:
    """``85% [82, 88]``; nothing where there is none."""
    return "" if estimate is None else _shown(estimate, "z.0f")


def table(
    rows: polars.DataFrame,
    policy: str,
    baseline: str,
    shown: Sequence[str] = tuple(LATENCIES),
    gap: str | None = None,
    gap_head: str = "gap closed",
) -> list[str]:
    """Lines of a Markdown table: means of the baseline, and how each policy differs from it.

    Args:
        rows: Of one cell: one for each policy and draw, with ``draw``, ``lost``, ``unstable`` and
            the columns that are shown.
        policy: Column with the name of the policy.
        baseline: Its value for the one that all others are compared with, which stands first.
        shown: Columns with values to compare.
        gap: Column of which the ``share`` of the way from the baseline to the rows named
            ``POOLED`` is shown as well.
        gap_head: What that share is called; a gap is closed from round robin on.

    Raises:
        ValueError: If a policy did not run on the baseline's draws.
    """
    heads = [policy, *shown, *([f"{gap_head}, {gap}"] if gap else [])]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    base = _draws(rows, policy, baseline)
    best = _draws(rows, policy, POOLED) if gap else base
    for name in _names(rows, policy, baseline):
        own = _draws(rows, policy, name)
        _check_draws(own, base, name, baseline)
        cells = [_compared(own, base, column) for column in shown]
        if gap:
            cells.append(shown_share(share(own, base, best, gap)))
        lines.append(f"| {name}{remark(own)} | {' | '.join(cells)} |")
    return [*lines, ""]


def remark(runs: polars.DataFrame) -> str:
    """What must be known of runs: how many were unstable, and how many requests they lost."""
    unstable, lost = int(runs["unstable"].sum()), int(runs["lost"].sum())
    parts = [f"unstable in {unstable} of {len(runs)}"] if unstable else []
    parts += [f"{lost:,} requests lost"] if lost else []
    return f" ({', '.join(parts)})" if parts else ""


def _draws(rows: polars.DataFrame, policy: str, name: str) -> polars.DataFrame:
    found = rows.filter(polars.col(policy) == name).sort("draw")
    if found.is_empty():
        raise ValueError(f"no row has {policy} {name}")
    return found


def _names(rows: polars.DataFrame, policy: str, baseline: str) -> list[str]:
    """All policies, the baseline first."""
    names = rows[policy].unique(maintain_order=True).to_list()
    return [baseline, *(name for name in names if name != baseline)]


def _check_draws(own: polars.DataFrame, base: polars.DataFrame, name: str, baseline: str) -> None:
    if own["draw"].to_list() != base["draw"].to_list():
        raise ValueError(f"{name} and {baseline} did not run on the same draws")


def _compared(own: polars.DataFrame, base: polars.DataFrame, column: str) -> str:
    """The mean of the baseline, or the change from it."""
    if own.equals(base):
        return f"{fmean(own[column]):.3g}"
    return shown_change(change(own[column].to_list(), base[column].to_list()))


def _exponential(logarithms: Estimate) -> Estimate:
    ends = (logarithms.low, logarithms.high)
    low, high = (None if end is None else float(np.expm1(end)) for end in ends)
    return Estimate(float(np.expm1(logarithms.mean)), low, high, logarithms.p)


def _shown(estimate: Estimate, form: str) -> str:
    mean = f"{estimate.mean * 100:{form}}%"
    if estimate.low is None or estimate.high is None:
        return mean
    return f"{mean} [{estimate.low * 100:{form}}, {estimate.high * 100:{form}}]"
