"""Draws docs/images/study_scale.svg from the rows of the study.

python -m experiments.scale.figure    # needs dpbal[report]
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars

from experiments.effects import POOLED
from experiments.figures import COLOURS, band, panels, save

PANELS = (
    ("lockstep", "TTFT s", "lockstep, TTFT, s"),
    ("lockstep", "E2E s", "lockstep, end to end, s"),
    ("lockstep", "straggler", "lockstep, straggler share"),
    ("independent", "TTFT s", "independent, TTFT, s"),
)
LOAD = 0.85


def main() -> None:
    """A panel a metric: a line a policy, against the number of ranks."""
    rows = polars.read_csv(Path(__file__).parent / "ranks.csv").filter(polars.col("load") == LOAD)
    policies = rows["policy"].unique(maintain_order=True).to_list()
    figure, axes = panels(2, 2)
    for panel, (kind, column, title) in zip(axes, PANELS, strict=True):
        of_kind = rows.filter(polars.col("kind") == kind)
        for policy, colour in zip(policies, COLOURS, strict=True):
            runs = of_kind.filter(polars.col("policy") == policy).sort("ranks", "draw")
            if runs.is_empty() or (column == "straggler" and policy == POOLED):
                continue
            ranks = runs["ranks"].unique(maintain_order=True).to_numpy()
            values = runs[column].to_numpy().reshape(len(ranks), -1)
            band(panel, np.log2(ranks), values, policy, colour)
            panel.set_xticks(np.log2(ranks), [str(count) for count in ranks])
        panel.set_ylim(bottom=0)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("ranks", fontsize=8)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8
    )
    save(figure, "scale")


if __name__ == "__main__":
    main()
