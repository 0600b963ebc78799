"""Draws docs/images/study_dispatchers.svg from the rows of the study.

python -m experiments.dispatchers.figure    # needs dpbal[report]
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars

from experiments.dispatchers.run import BASE, RULES, TRACE, TRANSPORTS
from experiments.figures import COLOURS, band, panels, save

SHOWN = ("lockstep, level", "independent")


def main() -> None:
    """A row for each kind of group, a panel for each transport, a line for each rule."""
    rows = polars.read_csv(Path(__file__).parent / "herds.csv", infer_schema_length=None)
    rows = rows.filter(polars.col("workload") == TRACE)
    figure, axes = panels(len(TRANSPORTS), len(SHOWN))
    places = [(kind, transport) for kind in SHOWN for transport in TRANSPORTS]
    for panel, (kind, transport) in zip(axes, places, strict=True):
        of_kind = rows.filter(polars.col("kind") == kind)
        for rule, colour in zip((BASE, *RULES), COLOURS, strict=False):
            name = rule if rule == BASE else f"{rule}, {transport}"
            runs = of_kind.filter(polars.col("policy") == name).sort("dispatchers", "draw")
            counts = runs["dispatchers"].unique(maintain_order=True).to_numpy()
            values = runs["TTFT s"].to_numpy().reshape(len(counts), -1)
            band(panel, np.log2(counts), values, rule, colour)
            panel.set_xticks(np.log2(counts), [str(count) for count in counts])
        panel.set_ylim(bottom=0)
        panel.set_title(f"{kind}, {transport}", fontsize=9)
        panel.set_xlabel("front ends", fontsize=8)
    for panel in axes[:: len(TRANSPORTS)]:
        panel.set_ylabel("TTFT, s", fontsize=8)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8
    )
    save(figure, "dispatchers")


if __name__ == "__main__":
    main()
