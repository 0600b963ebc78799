"""The effect of one combination beside another: which replicates, which interval, which verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import fmean

from dpbal.comparison.grouping import Combination
from dpbal.comparison.load import Run
from dpbal.comparison.metrics import Metric
from dpbal.comparison.modes import Correction
from dpbal.comparison.statistics import Estimate, holm, paired, welch

ROUNDING = 1e-9
"""A relative difference below this is no more than rounded last digits."""

LOSS = 0.001
"""Sides whose shares of lost requests differ by more than this finished different requests."""


class Method(StrEnum):
    """How an interval is made."""

    paired = "paired t"
    welch = "Welch"
    none = "none"


class Verdict(StrEnum):
    """What may be said."""

    better = "better"
    worse = "worse"
    no_difference = "no difference shown"
    withheld = "withheld"
    none = "none"


@dataclass(frozen=True)
class Effect:
    """One metric of a combination beside the baseline's.

    Attributes:
        metric: Which.
        baseline_mean: Over the baseline's replicates, or None where one has no value.
        mean: Over the combination's.
        difference: Mean of combination minus baseline, in the unit of ``result.json``.
        ratio: Change relative to the baseline, from the mean of the logarithms of the ratios; None
            for a share and where a value is not positive.
        method: How the intervals are made.
        replicates: How many the combination has in it.
        baseline_replicates: And the baseline.
        p_adjusted: Two-sided, of the ratio if there is one, else of the difference; corrected.
        verdict: Where the interval allows one.
    """

    metric: Metric
    baseline_mean: float | None
    mean: float | None
    difference: Estimate | None
    ratio: Estimate | None
    method: Method
    replicates: int
    baseline_replicates: int
    p_adjusted: float | None = None
    verdict: Verdict = Verdict.none

    @property
    def estimate(self) -> Estimate | None:
        """That of the two which the verdict goes by."""
        return self.ratio or self.difference


@dataclass(frozen=True)
class Match:
    """The replicates of two combinations that are compared.

    Attributes:
        method: Paired where at least two replicates met the same requests.
        ours: Runs of each replicate of the combination.
        theirs: The baseline's; of the same requests, one by one, if paired.
    """

    method: Method
    ours: list[list[Run]]
    theirs: list[list[Run]]


def match(combination: Combination, baseline: Combination) -> Match:
    """Pair two combinations by the requests they met, as far as they met the same."""
    ours, theirs = combination.replicates, baseline.replicates
    common = combination.requests & baseline.requests
    pairs = [
        (_that_met(common, ours[content]), met)
        for content, runs in theirs.items()
        if (met := _that_met(common, runs))
    ]
    fewest = min(len(ours), len(theirs))
    if len(pairs) >= 2 or (pairs and fewest == 1):
        method = Method.paired if len(pairs) >= 2 else Method.none
        return Match(method, [own for own, _ in pairs], [other for _, other in pairs])
    method = Method.welch if fewest >= 2 else Method.none
    return Match(method, list(ours.values()), list(theirs.values()))


def effect(combination: Combination, baseline: Combination, metric: Metric, level: float) -> Effect:
    """How a metric of a combination differs from the baseline's; without a verdict yet."""
    matched = match(combination, baseline)
    ours, theirs = _values(matched.ours, metric), _values(matched.theirs, metric)
    ratio = difference = None
    if ours is not None and theirs is not None:
        estimate = paired if matched.method is Method.paired else welch
        largest = max(abs(value) for value in (*ours, *theirs))
        difference = estimate(ours, theirs, level, ROUNDING * largest)
        if not metric.is_share and min(*ours, *theirs) > 0:
            logs = estimate(_logs(ours), _logs(theirs), level, ROUNDING)
            ratio = _change(logs)
    return Effect(
        metric,
        mean(baseline, metric),
        mean(combination, metric),
        difference,
        ratio,
        matched.method,
        len(matched.ours),
        len(matched.theirs),
    )


def judge(
    effects: Sequence[Sequence[Effect]],
    losses: Sequence[float],
    level: float,
    correct: Correction,
) -> list[list[Effect]]:
    """Add verdicts.

    Args:
        effects: One row for each combination.
        losses: For each, the share of requests it lost minus that which the baseline lost.
        level: A verdict needs a corrected probability under one minus this.
        correct: Over what Holm's correction is made.
    """
    rows = [[_p(one) for one in row] for row in effects]
    if correct is Correction.holm_all:
        flat = iter(_corrected([p for row in rows for p in row]))
        rows = [[next(flat) for _ in row] for row in rows]
    elif correct is Correction.holm:
        rows = [_corrected(row) for row in rows]
    return [
        [_judged(one, p, level, loss) for one, p in zip(row, adjusted, strict=True)]
        for row, adjusted, loss in zip(effects, rows, losses, strict=True)
    ]


def mean(combination: Combination, metric: Metric) -> float | None:
    """Mean over replicates; None where a run has no value."""
    values = _values(list(combination.replicates.values()), metric)
    return None if values is None else fmean(values)


def lost_share(combination: Combination) -> float:
    """Share of all requests offered to a combination that did not finish."""
    counts = [run.result.requests for run in combination.runs]
    offered = sum(count.offered for count in counts)
    return 1 - sum(count.finished for count in counts) / offered if offered else 0.0


def _p(one: Effect) -> float | None:
    return None if one.estimate is None else one.estimate.p


def _corrected(row: Sequence[float | None]) -> list[float | None]:
    adjusted = iter(holm([p for p in row if p is not None]))
    return [None if p is None else next(adjusted) for p in row]


def _judged(one: Effect, p: float | None, level: float, loss: float) -> Effect:
    if p is None or one.estimate is None:
        return one
    if p >= 1 - level:
        return replace(one, p_adjusted=p, verdict=Verdict.no_difference)
    is_better = (one.estimate.mean < 0) == one.metric.lower_is_better
    verdict = Verdict.better if is_better else Verdict.worse
    favours_loser = is_better == (loss > 0)
    if one.metric.of_finished and abs(loss) > LOSS and favours_loser:
        verdict = Verdict.withheld
    return replace(one, p_adjusted=p, verdict=verdict)


def _that_met(requests: frozenset[str], runs: list[Run]) -> list[Run]:
    return [run for run in runs if run.result.requests_digest in requests]


def _values(replicates: list[list[Run]], metric: Metric) -> list[float] | None:
    """One value a replicate: its runs are averaged, first those on the very same requests.

    So both sides of a pair give each set of arrivals the same weight.
    """
    values = []
    for runs in replicates:
        measured: dict[str, list[float]] = {}
        for run in runs:
            value = metric.of(run.result)
            if value is None:
                return None
            measured.setdefault(run.result.requests_digest, []).append(value)
        values.append(fmean(fmean(each) for each in measured.values()))
    return values


def _logs(values: Sequence[float]) -> list[float]:
    return [math.log(value) for value in values]


def _change(logs: Estimate) -> Estimate:
    """From logarithms of ratios to changes."""
    low = None if logs.low is None else math.expm1(logs.low)
    high = None if logs.high is None else math.expm1(logs.high)
    return Estimate(math.expm1(logs.mean), low, high, logs.p)
