"""Draws docs/images/study_caches.svg from the rows of the study.

python -m experiments.caches.figure    # needs dpbal[report]
"""

from __future__ import annotations

from pathlib import Path

import polars

from experiments.caches.run import BLIND, CELLS
from experiments.effects import effect
from experiments.figures import COLOURS, interval, panels, save

TICKS = (0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 5, 10)


def main() -> None:
    """A panel for each of ``CELLS``: end-to-end latency of each rule beside the blind one's."""
    rows = polars.read_csv(Path(__file__).parent / "rules.csv", infer_schema_length=None)
    figure, axes = panels(2, (len(CELLS) + 1) // 2, 2.4)
    for panel in axes[len(CELLS) :]:
        panel.set_axis_off()
    for panel, (workload, kind) in zip(axes[: len(CELLS)], CELLS, strict=True):
        cell = rows.filter(polars.col("workload") == workload, polars.col("kind") == kind)
        rules = [name for name in cell["policy"].unique(maintain_order=True) if name != BLIND]
        for place, rule in enumerate(reversed(rules)):
            found = effect(cell, rule, BLIND, "E2E s")
            interval(panel, place, found, COLOURS[0], 1.4, across=True)
        panel.axvline(1.0, color="black", linewidth=0.6)
        panel.set_xscale("log")
        low, high = panel.get_xlim()
        ticks = [tick for tick in TICKS if low <= tick <= high]
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.minorticks_off()
        panel.set_yticks(range(len(rules)), rules[::-1], fontsize=7)
        panel.set_title(f"{workload.removesuffix('_conversation')}, {kind}", fontsize=9)
    save(figure, "caches")


if __name__ == "__main__":
    main()
