"""Finds the runs that a command line names, and reads their ``result.json``."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from dpbal.errors import ConfigError, DpbalError

RESULT = "result.json"
CAPACITY = "capacity.json"
"""What a capacity search leaves in its place: loads, and no metrics of one run."""

LEFT_BY_HYDRA = ("multirun.yaml", "optimization_results.yaml")
"""Files beside the jobs of a multirun, which a shell's ``multirun/.../*`` names too."""


class ResultError(DpbalError, ValueError):
    """A run that did not end, or a ``result.json`` that cannot be read."""


class Outcomes(msgspec.Struct, frozen=True):
    """What became of the requests of a run."""

    offered: int
    finished: int
    failed: int
    aborted: int
    unfinished: int

    @property
    def lost_share(self) -> float:
        """Share of the offered requests that did not finish."""
        return 1 - self.finished / self.offered if self.offered else 0.0


class Distribution(msgspec.Struct, frozen=True):
    """Summary of a latency in seconds; None where nothing was measured."""

    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None


class Result(msgspec.Struct, frozen=True):
    """The part of ``result.json`` that a comparison reads; ``dpbal.results`` writes it."""

    requests: Outcomes
    ttft_s: Distribution
    tpot_s: Distribution
    itl_s: Distribution
    e2e_s: Distribution
    output_tokens_per_s: float | None
    goodput_rps: float | None
    good_share: float | None
    straggler_share: float | None
    prefix_hit_share: float | None
    duration_s: float
    unstable: bool
    config: dict[str, Any]
    seed: int
    versions: dict[str, str]
    requests_digest: str
    content_digest: str


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        directory: Where its files are.
        argument: The word of the command line that named it.
        result: What it left.
    """

    directory: Path
    argument: str
    result: Result


@dataclass(frozen=True)
class Found:
    """The runs that were named, in the order of the words and then of the job numbers.

    Attributes:
        runs: Each once, however often it was named.
        incomplete: Directories of runs that left no result.
    """

    runs: list[Run]
    incomplete: list[Path]


def find(words: Iterable[str | Path]) -> Found:
    """Read all runs that are named.

    Args:
        words: Run directories, directories that hold runs at any depth such as a multirun's, glob
            patterns of such, or ``result.json`` files.

    Raises:
        ConfigError: If a word names nothing.
        ResultError: If a named run did not end, or a result cannot be read.
    """
    runs: dict[Path, Run] = {}
    incomplete: dict[Path, None] = {}
    for word in words:
        for path in _expand(str(word)):
            files = [path] if path.is_file() else _results_in(path)
            if path.is_dir():
                incomplete.update(dict.fromkeys(incomplete_in(path)))
            for file in files:
                if file.resolve() not in runs:
                    runs[file.resolve()] = Run(file.parent, str(word), read(file))
    return Found(list(runs.values()), list(incomplete))


def read(file: Path) -> Result:
    """Read one ``result.json``.

    Raises:
        ResultError: If it is not one, with the reason.
    """
    try:
        result = msgspec.json.decode(file.read_bytes(), type=Result)
    except OSError as error:
        raise ResultError(f"{file}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "; run it again with this dpbal" if "missing required" in str(error) else ""
        raise ResultError(f"{file} is not a result of dpbal-run: {error}{hint}") from None
    balancer = result.config.get("balancer")
    if not isinstance(balancer, dict) or "name" not in balancer:
        raise ResultError(f"{file} is not a result of dpbal-run: its config names no balancer")
    return result


def _expand(word: str) -> list[Path]:
    path = Path(word)
    if path.exists():
        return [] if path.name in LEFT_BY_HYDRA else [path]
    if not glob.has_magic(word):
        raise ConfigError(f"there is no run {word}; name a run directory, a multirun or a glob")
    found = [Path(match) for match in glob.glob(word, recursive=True)]
    kept = [path for path in found if path.is_dir() or path.name == RESULT]
    if not kept:
        raise ConfigError(f"no run matches {word}; name a run directory, a multirun or a glob")
    return sorted(kept, key=_natural)


def _results_in(folder: Path) -> list[Path]:
    if (folder / RESULT).is_file():
        return [folder / RESULT]
    files = sorted(folder.rglob(RESULT), key=_natural)
    if files:
        return files
    if (folder / CAPACITY).is_file():
        raise ResultError(f"{folder} is a capacity search: it holds {CAPACITY}, and no {RESULT}")
    if _is_run(folder):
        raise ResultError(f"{folder} holds no {RESULT}: the run did not end; run it again")
    started = len(incomplete_in(folder))
    reason = f"none of its {started} runs ended" if started else "and no folder in it does"
    raise ResultError(f"{folder} holds no {RESULT}, {reason}")


def incomplete_in(folder: Path) -> list[Path]:
    """Directories of jobs that left neither a result nor a capacity, in the order of jobs."""
    starts = sorted(folder.rglob(".hydra"), key=_natural)
    ends = (RESULT, CAPACITY)
    return [s.parent for s in starts if not any((s.parent / end).is_file() for end in ends)]


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in (".hydra", "dpbal-run.log", "requests.parquet"))


def _natural(path: Path) -> list[tuple[int, str]]:
    """So that job 10 comes after job 9."""
    return [(int(part or 0), text) for part, text in re.findall(r"(\d*)(\D*)", str(path))]
