"""What a folder of runs holds, read once; tables of requests and steps when a figure asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpbal.comparison.comparison import Comparison, compare_runs
from dpbal.comparison.effects import mean
from dpbal.comparison.grouping import Block, Combination, blocks, combine
from dpbal.comparison.load import Run, find
from dpbal.comparison.metrics import METRICS
from dpbal.errors import ConfigError
from dpbal.report import files
from dpbal.report.files import REQUESTS, STEPS

if TYPE_CHECKING:
    import polars

MOST_COMBINATIONS = 6
"""Of a setting, in the figures of single runs: more cannot be told apart."""
MOST_SETTINGS = 2
MOST_RUNS = 5
"""Of a combination, where a figure pools them."""


@dataclass(frozen=True)
class Selection:
    """What the figures of single runs show of a setting.

    Attributes:
        label: Of the setting; empty where there is one.
        combinations: The baseline first.
        left_out: How many combinations of the setting are not among them.
    """

    label: str
    combinations: list[Combination]
    left_out: int


@dataclass(frozen=True)
class Contents:
    """All that a report is made of.

    Attributes:
        folder: As it was named.
        runs: In the order of their numbers.
        blocks: By setting, with the combinations inside.
        comparison: None where there is one combination, and nothing to compare it with.
        baselines: What the others of each block are compared with.
        incomplete: Runs that did not end.
    """

    folder: Path
    runs: list[Run]
    blocks: list[Block]
    comparison: Comparison | None
    baselines: list[Combination]
    incomplete: list[Path] = field(default_factory=list)
    _raw: dict[Path, dict[str, Any]] = field(default_factory=dict, repr=False)
    _frames: dict[Path, polars.DataFrame] = field(default_factory=dict, repr=False)

    def raw(self, run: Run) -> dict[str, Any]:
        """The whole ``result.json``."""
        if run.directory not in self._raw:
            self._raw[run.directory] = files.result(run)
        return self._raw[run.directory]

    def has_tables(self, run: Run) -> bool:
        """Whether ``requests`` and ``steps`` are there: someone may have kept the result alone."""
        return all((run.directory / name).is_file() for name in (REQUESTS, STEPS))

    def requests(self, run: Run) -> polars.DataFrame:
        """``requests.parquet``; ask for those of few runs, by ``selections`` and ``of``."""
        return self._frame(run, REQUESTS)

    def steps(self, run: Run) -> polars.DataFrame:
        """``steps.parquet``, in order of time and rank; ask for those of few runs."""
        return self._frame(run, STEPS)

    def selections(self, with_tables: bool = True) -> list[Selection]:
        """The settings and combinations that the figures of single runs show.

        The first settings; of each the baseline, then the combination of every balancer with the
        lowest mean E2E, then every balancer's next.

        Args:
            with_tables: Leave out combinations of whose runs none has its tables, and settings that
                have no other.
        """
        found = []
        for block, base in list(zip(self.blocks, self.baselines, strict=True))[:MOST_SETTINGS]:
            kept = [one for one in block.combinations if not with_tables or self.of(one, 1)]
            ordered = sorted(_by_balancer(kept), key=lambda one: one is not base)
            chosen = ordered[:MOST_COMBINATIONS]
            if chosen:
                left_out = len(block.combinations) - len(chosen)
                found.append(Selection(block.label, chosen, left_out))
        return found

    def of(self, combination: Combination, most: int = MOST_RUNS) -> list[Run]:
        """The first runs of a combination that have tables."""
        return [run for run in combination.runs if self.has_tables(run)][:most]

    def _frame(self, run: Run, name: str) -> polars.DataFrame:
        path = run.directory / name
        if path not in self._frames:
            self._frames[path] = files.table(run, name)
        return self._frames[path]


def read(folder: Path, baseline: str | None = None) -> Contents:
    """Read what is in a folder.

    Args:
        folder: A run, a multirun, or any folder with runs somewhere below.
        baseline: As ``dpbal.comparison.comparison.compare`` takes it.

    Raises:
        DpbalError: If there is no run, one cannot be read, or no baseline of that name.
    """
    found = find([folder])
    everyone = combine(found.runs)
    if len(everyone) == 1:
        if baseline is not None:
            raise ConfigError(f"--baseline {baseline}: {folder} holds one combination only")
        groups = blocks(everyone)
        alone = [group.combinations[0] for group in groups]
        return Contents(folder, found.runs, groups, None, alone, found.incomplete)
    comparison = compare_runs(found.runs, baseline)
    chosen = {id(table.baseline) for table in comparison.tables}
    bases = [
        next((one for one in group.combinations if id(one) in chosen), group.combinations[0])
        for group in comparison.blocks
    ]
    return Contents(folder, found.runs, comparison.blocks, comparison, bases, found.incomplete)


def asked_load(workload: Mapping[str, Any]) -> float | None:
    """The load that a workload's config asks for; None where a rate takes its place."""
    load: float | None = workload.get("load")
    return load if workload.get("rate") is None else None


def _by_balancer(combinations: list[Combination]) -> list[Combination]:
    """The best of every balancer, then the second best of every balancer, and so on."""
    places: dict[int, int] = {}
    seen: dict[str, int] = {}
    ordered = sorted(combinations, key=_e2e_s)
    for one in ordered:
        places[id(one)] = seen.setdefault(one.balancer, 0)
        seen[one.balancer] += 1
    return sorted(ordered, key=lambda one: places[id(one)])


def _e2e_s(combination: Combination) -> float:
    value = mean(combination, METRICS["e2e_mean"])
    return float("inf") if value is None else value
