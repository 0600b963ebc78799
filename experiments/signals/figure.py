"""Draws what each signal changes, with its interval.

    python -m experiments.signals.figure    # needs dpbal[report]

Writes docs/images/study_signals.svg from what ``experiments.signals.run`` left.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars
from matplotlib.axes import Axes

from experiments.effects import effect
from experiments.figures import COLOURS, interval, panels, save
from experiments.signals.run import BASELINE, SIGNALS, WORKLOADS

METRICS = ("TTFT s", "E2E s")
CELLS = (("fixed", "lockstep"), ("fixed", "independent"), ("level", "lockstep"))
FACTORS = {"TTFT s": (0.1, 0.2, 0.5, 1.0, 2.0, 5.0), "E2E s": (0.5, 0.7, 1.0, 1.4, 2.0)}


def draw(panel: Axes, rows: polars.DataFrame, column: str) -> None:
    """A point and an interval for each signal and workload."""
    places = np.arange(len(SIGNALS), dtype=float)[::-1]
    shifts = np.linspace(0.27, -0.27, len(WORKLOADS))
    for workload, shift, colour in zip(WORKLOADS, shifts, COLOURS, strict=False):
        own = rows.filter(polars.col("workload") == workload)
        for signal, place in zip(SIGNALS, places, strict=True):
            found = effect(own, signal, BASELINE, column)
            label = workload if place == 0 else None
            interval(panel, place + shift, found, colour, 1.0, label, across=True)
    panel.axvline(1.0, color="black", linewidth=0.9)
    panel.set_xscale("log")
    panel.set_xticks(FACTORS[column], [f"{factor:g}" for factor in FACTORS[column]])
    panel.minorticks_off()
    panel.grid(axis="x", linewidth=0.4, color="#d0d0d0")
    panel.set_yticks(places, SIGNALS)
    panel.tick_params(labelsize=7)


def main() -> None:
    """Panels of two metrics: lockstep, independent, and lockstep with the level budget."""
    folder = Path(__file__).parent
    figure, axes = panels(len(CELLS), len(METRICS), height_in=3.6)
    place = 0
    for column in METRICS:
        for question, kind in CELLS:
            panel = axes[place]
            rows = polars.read_csv(folder / f"{question}.csv").filter(polars.col("kind") == kind)
            draw(panel, rows, column)
            budget = ", level" if question == "level" else ""
            panel.set_title(f"{kind}{budget}: {column[:-2]} / round robin", fontsize=8)
            if place % len(CELLS):
                panel.set_yticklabels([])
            place += 1
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8
    )
    save(figure, "signals")


if __name__ == "__main__":
    main()
