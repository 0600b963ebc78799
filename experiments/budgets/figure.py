"""Draws docs/images/study_budgets.svg from the rows of the study.

python -m experiments.budgets.figure    # needs dpbal[report]
"""

from __future__ import annotations

from pathlib import Path

import polars

from experiments.budgets.run import BASE, PROFILES
from experiments.effects import effect
from experiments.figures import COLOURS, interval, panels, save

LOAD = 0.85
LABELS = {"mooncake_conversation": "mooncake"}
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
METRICS = ("TTFT s", "E2E s")
POLICIES = (
    "least_prefill + fixed",
    "least_prefill + interval",
    "least_prefill + aligned, tuned",
    "least_prefill + time_cap, tuned",
    "least_prefill + level",
)


def main() -> None:
    """A panel for each profile and metric: how much each policy changes it, by workload."""
    rows = polars.read_csv(Path(__file__).parent / "loads.csv", infer_schema_length=None)
    rows = rows.filter(polars.col("load") == LOAD)
    figure, axes = panels(2, 2)
    places = [(profile, metric) for profile in PROFILES for metric in METRICS]
    for panel, (profile, metric) in zip(axes, places, strict=True):
        of_profile = rows.filter(polars.col("profile") == profile)
        workloads = of_profile["workload"].unique(maintain_order=True).to_list()
        for number, (policy, colour) in enumerate(zip(POLICIES, COLOURS, strict=False)):
            for place, workload in enumerate(workloads):
                cell = of_profile.filter(polars.col("workload") == workload)
                found = effect(cell, policy, BASE, metric)
                interval(panel, place + (number - 2) * 0.13, found, colour, 1.2, policy)
        panel.axhline(1.0, color="black", linewidth=0.6)
        panel.set_yscale("log")
        panel.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        panel.minorticks_off()
        panel.set_xticks(
            range(len(workloads)), [LABELS.get(name, name) for name in workloads], fontsize=7
        )
        panel.set_title(f"{profile}: {metric[:-2]}, times round robin's", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    figure.legend(
        list(by_label.values()), list(by_label), loc="outside lower center", ncols=3, fontsize=8
    )
    save(figure, "budgets")


if __name__ == "__main__":
    main()
