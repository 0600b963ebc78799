"""Draws docs/images/study_caches.svg from the rows of the study.

python -m experiments.caches.figure    # needs dpbal[report]
"""

from __future__ import annotations

from pathlib import Path

import polars

from experiments.caches.run import BLIND, CELLS
from experiments.effects import change
from experiments.figures import COLOURS, panels, save

TICKS = (0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 5, 10)


def main() -> None:
    """A panel for each cell: end-to-end latency of each rule beside that of the blind one."""
    rows = polars.read_csv(Path(__file__).parent / "rules.csv", infer_schema_length=None)
    figure, axes = panels(2, 3, 2.4)
    for panel, (workload, kind) in zip(axes, CELLS, strict=False):
        cell = rows.filter(polars.col("workload") == workload, polars.col("kind") == kind)
        base = cell.filter(polars.col("policy") == BLIND).sort("draw")["E2E s"].to_list()
        rules = [name for name in cell["policy"].unique(maintain_order=True) if name != BLIND]
        for place, rule in enumerate(reversed(rules)):
            own = cell.filter(polars.col("policy") == rule).sort("draw")["E2E s"].to_list()
            effect = change(own, base)
            low, high = (effect.mean if end is None else end for end in (effect.low, effect.high))
            panel.plot([1 + low, 1 + high], [place, place], color=COLOURS[0], linewidth=1.4)
            panel.plot(1 + effect.mean, place, "o", color=COLOURS[0], markersize=4)
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
