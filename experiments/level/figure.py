"""Draws some steps of all ranks without and with the level budget: who waits for whom.

    DPBAL_TRACES=FOLDER python -m experiments.level.figure    # needs dpbal[report]

Writes docs/images/level_steps.svg.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch

from dpbal.composition import compose
from dpbal.experiment import Experiment
from dpbal.parts import build_step_time
from dpbal.progress import Progress
from experiments.level.cells import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POLICIES = {
    "balancer=round_robin: a step lasts as long as its longest prefill": ("balancer=round_robin",),
    "balancer=least_prefill budget=level: prefill fills what the decodes leave": (
        "balancer=least_prefill",
        "budget=level",
    ),
}
CELL = Cell("azure_conv")
WINDOW = 2
SPAN_S = 1.0
COLOURS = {"decodes": "#4c72b0", "prefill": "#dd8452", "waiting": "#e8e8e8", "all ranks": "#8c8c8c"}
FIGURE = Path(__file__).parents[2] / "docs" / "images" / "level_steps.svg"


def draw(axes: Axes, policy: tuple[str, ...]) -> None:
    """The steps of all ranks for a while in the middle of the run, in milliseconds."""
    config = compose(*CELL.lines(WINDOW), *policy)
    records = Experiment(config).run(Progress(enabled=False))
    step_time = build_step_time(config.profile)
    steps = records.steps.reshape(-1, records.ranks)
    middle_s = float(steps["end_s"].max()) / 2
    starts_s = steps["start_s"][:, 0]
    for row in steps[(starts_s >= middle_s) & (starts_s < middle_s + SPAN_S)]:
        begin_ms = (row["start_s"][0] - middle_s) * 1e3
        longest_ms = row["local_s"].max() * 1e3
        end_ms = (row["end_s"][0] - middle_s) * 1e3
        for rank, own in enumerate(row):
            share = _prefill_share(own, step_time.prefill_s_per_token)
            local_ms = own["local_s"] * 1e3
            at_ms = begin_ms
            for part, width_ms in (
                ("decodes", local_ms * (1 - share)),
                ("prefill", local_ms * share),
                ("waiting", longest_ms - local_ms),
                ("all ranks", end_ms - begin_ms - longest_ms),
            ):
                axes.barh(rank, width_ms, 0.86, at_ms, color=COLOURS[part], linewidth=0)
                at_ms += width_ms
        axes.axvline(end_ms, color="black", linewidth=0.4)
    axes.set_xlim(0, SPAN_S * 1e3)
    axes.set_ylabel("rank")
    axes.set_yticks(range(records.ranks))


def _prefill_share(step: np.void, prefill_s_per_token: float) -> float:
    """Share of a rank's own time that its prompts' tokens took, their attention left out."""
    if step["local_s"] == 0:
        return 0.0
    return min(1.0, float(step["prefill_tokens"]) * prefill_s_per_token / float(step["local_s"]))


def main() -> None:
    """Draw both, one above the other on one scale of time."""
    mpl.rcParams["svg.hashsalt"] = "dpbal"  # the same figure each time
    figure, rows = plt.subplots(len(POLICIES), 1, figsize=(10, 5.2), sharex=True)
    for axes, (title, policy) in zip(rows, POLICIES.items(), strict=True):
        draw(axes, policy)
        axes.set_title(title, loc="left", fontsize=10)
    rows[-1].set_xlabel("time, ms; a line is the end of a step")
    handles = [Patch(color=colour, label=part) for part, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="upper right", ncols=len(handles), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
