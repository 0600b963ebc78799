"""From runs to a comparison: the one function that the command and a script both call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from dpbal.comparison import baseline as choice
from dpbal.comparison import metrics as known
from dpbal.comparison.effects import Effect, effect, judge, lost_share
from dpbal.comparison.grouping import Block, Combination, blocks, combine, sides
from dpbal.comparison.load import Run, find
from dpbal.comparison.metrics import Metric
from dpbal.comparison.modes import By, Correction
from dpbal.comparison.remarks import remarks, unfinished
from dpbal.errors import ConfigError, unknown

M = TypeVar("M", bound=StrEnum)


@dataclass(frozen=True)
class Compared:
    """A combination, and how each metric differs from the baseline's.

    Attributes:
        combination: Which.
        effects: In the order of the metrics.
    """

    combination: Combination
    effects: list[Effect]


@dataclass(frozen=True)
class Table:
    """What was compared under one setting.

    Attributes:
        setting: What tells it from the other settings; empty where there is one.
        baseline: What the others are compared with.
        others: In the order of their first runs.
    """

    setting: str
    baseline: Combination
    others: list[Compared]


@dataclass(frozen=True)
class Comparison:
    """All tables, and what a reader must know beside them.

    Attributes:
        tables: One for each setting.
        metrics: What was compared.
        level: Of the intervals and verdicts.
        correct: Over what Holm's correction was made.
        warnings: One line each.
        blocks: All that ran by setting, with what was left out.
    """

    tables: list[Table]
    metrics: list[Metric]
    level: float
    correct: Correction
    warnings: list[str]
    blocks: list[Block]


def compare(
    paths: Iterable[str | Path],
    baseline: str | None = None,
    level: float = 0.95,
    metrics: Sequence[str] | None = None,
    correct: Correction | str = Correction.holm,
    by: By | str = By.combination,
) -> Comparison:
    """Compare finished runs.

    Args:
        paths: Run directories, multirun directories, globs of them, or ``result.json`` files.
        baseline: Name of a combination or balancer, or ``key=value,key=value``; by default round
            robin, or else what was named first.
        level: Of each interval, and of the verdicts together over what ``correct`` says.
        metrics: Names from ``dpbal.comparison.metrics.METRICS``; by default those of a run's table.
        correct: ``holm`` over the metrics of a combination, ``holm-all`` over all of a setting's
            combinations and metrics, or ``none``.
        by: What is one side: a ``combination``, or each of the ``paths`` an ``argument``.

    Raises:
        DpbalError: If there is no such run, baseline or metric, a result cannot be read, or there
            is nothing to compare.
    """
    found = find(paths)
    comparison = compare_runs(found.runs, baseline, level, metrics, correct, by)
    comparison.warnings[:0] = unfinished(found.incomplete)
    return comparison


def compare_runs(
    runs: Sequence[Run],
    baseline: str | None = None,
    level: float = 0.95,
    metrics: Sequence[str] | None = None,
    correct: Correction | str = Correction.holm,
    by: By | str = By.combination,
) -> Comparison:
    """Compare runs that have been read; for the arguments see ``compare``."""
    if not 0 < level < 1:
        raise ConfigError(f"level must be between 0 and 1, such as 0.95, got {level:g}")
    if not runs:
        raise ConfigError("there is no run to compare; name run directories or a multirun")
    chosen = known.choose(metrics)
    correction = _mode(Correction, "correction", correct)
    groups, wanted = _sides(runs, baseline, _mode(By, "side", by))
    tables: list[Table] = []
    warnings: list[str] = []
    for group in groups:
        prefix = f"{group.label}: " if group.label else ""
        fits = choice.candidates(group, wanted)
        if not fits:
            warnings.append(f"{prefix}left out, for the baseline {wanted.text} did not run there")
        elif len(group.combinations) == 1:
            warnings.append(f"{prefix}left out, for nothing but {fits[0].label} ran there")
        else:
            tables.append(_table(group, fits[0], chosen, level, correction))
            others = [other.combination for other in tables[-1].others]
            lines = [*choice.remarks(wanted, fits), *remarks(fits[0], others)]
            warnings += [f"{prefix}{line}" for line in lines]
    if not tables:
        raise choice.missing(wanted, groups)
    return Comparison(tables, chosen, level, correction, warnings, groups)


def _sides(runs: Sequence[Run], baseline: str | None, by: By) -> tuple[list[Block], choice.Wanted]:
    """What is compared with each other, and what the baseline must be."""
    if by is By.argument:
        groups = [sides(runs)]
        if baseline is None:
            baseline = groups[0].combinations[0].label
    else:
        groups = blocks(combine(runs))
    everyone = [one for group in groups for one in group.combinations]
    if len(everyone) == 1:
        hint = (
            "name a second RUN"
            if by is By.argument
            else "name runs of a second one, or add --by argument to compare what each RUN names"
        )
        many = f"all {len(runs)} runs are" if len(runs) > 1 else "the only run is"
        raise ConfigError(f"{many} of one combination, {everyone[0].label}; {hint}")
    wanted = choice.parse(baseline, everyone)
    if wanted.across and by is By.combination:
        groups = blocks(everyone, wanted.across)
    return groups, wanted


def _table(
    group: Block, base: Combination, metrics: list[Metric], level: float, correct: Correction
) -> Table:
    others = [one for one in group.combinations if one is not base]
    effects = [[effect(one, base, metric, level) for metric in metrics] for one in others]
    losses = [lost_share(one) - lost_share(base) for one in others]
    judged = judge(effects, losses, level, correct)
    return Table(group.label, base, [Compared(*one) for one in zip(others, judged, strict=True)])


def _mode(modes: type[M], kind: str, given: str) -> M:
    try:
        return modes(given)
    except ValueError:
        raise ConfigError(unknown(kind, given, [mode.value for mode in modes])) from None
