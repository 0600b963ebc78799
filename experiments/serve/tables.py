"""What the tables of these studies share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def markdown(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table."""
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def named(text: str) -> str:
    """What a JSON object names; long names of sockets are only counted."""
    found: dict[str, Any] = json.loads(text)
    if "sockets" in found:
        found["sockets"] = len(found["sockets"])
    return ", ".join(f"{name}: {value}" for name, value in found.items()) or "nothing"


def mean_of(each: np.ndarray) -> tuple[float, float]:
    """The mean, and half of its 95 % t interval."""
    from scipy import stats

    if len(each) < 2:
        return float(each.mean()), float("nan")
    return float(each.mean()), float(stats.t.ppf(0.975, len(each) - 1) * stats.sem(each))
