"""Draws how each policy differs from round robin by load, and when all arrive at once.

    python -m experiments.pr_7379.figure    # needs dpbal[report]

Writes docs/images/study_pr_7379.svg from what ``experiments.pr_7379.run`` left.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import polars
from matplotlib.axes import Axes

from experiments.effects import effect
from experiments.figures import COLOURS, interval, panels, save
from experiments.pr_7379.cells import BASELINE, POLICIES
from experiments.pr_7379.run import LOADS

METRICS = ("TTFT s", "TPOT ms", "ITL p99 ms")
QUESTION_OF = {"lockstep": "benchmark", "independent": "elsewhere"}
OTHERS = tuple(name for name in POLICIES if name != BASELINE)


def draw(panel: Axes, rows: polars.DataFrame, column: str) -> None:
    """A point and an interval for each policy and load."""
    shifts = np.linspace(-0.28, 0.28, len(OTHERS))
    for policy, shift, colour in zip(OTHERS, shifts, COLOURS, strict=False):
        for place, load in enumerate(LOADS):
            found = effect(rows.filter(polars.col("load") == load), policy, BASELINE, column)
            label = policy if place == 0 else None
            interval(panel, place + shift, found, colour, 1.2, label)
    panel.axhline(1.0, color="black", linewidth=0.9)
    # factors are drawn, changes are read; rounded, as 1.075 - 1 is not quite 0.075
    panel.yaxis.set_major_formatter(lambda factor, _: f"{round(100 * (factor - 1), 6):zg}")
    panel.set_xticks(range(len(LOADS)), LOADS)


def main() -> None:
    """A row of panels for each kind of group."""
    folder = Path(__file__).parent
    figure, axes = panels(len(METRICS), len(QUESTION_OF), height_in=2.6)
    for panel, (kind, column) in zip(axes, product(QUESTION_OF, METRICS), strict=True):
        rows = polars.read_csv(folder / f"{QUESTION_OF[kind]}.csv", infer_schema_length=None)
        own = rows.filter(
            polars.col("kind") == kind,
            polars.col("workload") == "conv_like",
            polars.col("profile").is_null(),
        )
        draw(panel, own, column)
        panel.set_title(f"{kind}: {column.rsplit(' ', 1)[0]}, change in %", fontsize=9)
        panel.set_xlabel("load", fontsize=8)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    save(figure, "pr_7379")


if __name__ == "__main__":
    main()
