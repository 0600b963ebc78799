"""Capacity searches of a folder, as one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dpbal.capacity.overview import conclusion
from dpbal.capacity.search import FILE
from dpbal.comparison.load import RESULT, ResultError
from dpbal.comparison.table import Sheet
from dpbal.console import title
from dpbal.report import files

NEEDED = (
    "attainment",
    "choices.balancer",
    "choices.budget",
    "choices.signal",
    "choices.transport",
    "config.capacity.high",
    "config.capacity.low",
    "config.ledger.mode",
    "load",
    "rate_rps",
    "seeds",
    "verdict",
    "warnings",
)
"""Keys of a search that the page reads."""


def is_search(folder: Path) -> bool:
    """Whether a folder holds searches and no runs."""
    return any(folder.rglob(FILE)) and not any(folder.rglob(RESULT))


def count(folder: Path) -> int:
    """How many searches a folder holds."""
    return sum(1 for _ in folder.rglob(FILE))


def read(folder: Path) -> list[dict[str, Any]]:
    """All searches, in the order of their paths.

    Raises:
        ResultError: If a file is not one, or another dpbal wrote it.
    """
    found = []
    for path in sorted(folder.rglob(FILE)):
        try:
            one = json.loads(path.read_bytes())
        except ValueError as error:
            raise ResultError(f"{path} is not a capacity search of dpbal-run: {error}") from None
        files.check(path, one, NEEDED)
        found.append(one)
    return found


def table(searches: list[dict[str, Any]]) -> Sheet:
    """One row a search: the highest load at which enough requests are good."""
    rows = []
    for one in searches:
        row = [title(one), f"{one['attainment']:.0%}"]
        for key in ("load", "rate_rps"):
            value = one[key]
            row.append(one["verdict"] if value is None else f"{value['mean']:.3f}")
            has_ends = value is not None and value["low"] is not None
            row.append(f"[{value['low']:.3f}, {value['high']:.3f}]" if has_ends else "")
        rows.append([*row, str(len(one["seeds"]))])
    interval = "95 % interval"
    header = ["combination", "good", "load", interval, "requests/s", interval, "searches"]
    return Sheet("Capacity", header, [rows])


def notes(searches: list[dict[str, Any]]) -> list[str]:
    """What the searches concluded and warned of."""
    return [
        f"{title(one)}: {line}" for one in searches for line in (conclusion(one), *one["warnings"])
    ]
