"""Draws where an old report becomes worse than none, with and without the ledger.

    python -m experiments.staleness.figure    # needs dpbal[report]

Writes docs/images/study_staleness.svg from what ``experiments.staleness.run`` left.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import polars
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.effects import effect
from experiments.figures import COLOURS, panels, save
from experiments.held_out import KINDS
from experiments.staleness.cells import AGES_S, BASELINE, HOW, RANDOM, RULES
from experiments.staleness.tables import Line

QUESTIONS = {"one": "one front end", "four": "four front ends"}
TITLES = {"late": "reports late", "seldom": "seen seldom"}
COLUMN = "TTFT s"
FRESH_AT_S = 0.004
"""Where fresh reports stand on the logarithmic axis."""

TICKS_S = (FRESH_AT_S, 0.01, 0.05, 0.2, 1.0, 5.0)
FACTORS = (0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 10.0, 20.0)
COLOUR = dict(zip(dict(RULES), COLOURS, strict=False))
STYLE = {"acknowledge": "-", "overwrite": ":"}


def draw(panel: Axes, rows: polars.DataFrame, how: str) -> None:
    """All rules of a kind of group, as the mean factor over round robin."""
    places = np.array([age_s or FRESH_AT_S for age_s in AGES_S])
    for rule, ledger in RULES:
        line = Line(rule, ledger, how)
        factors = [1 + line.effect(rows, age_s, COLUMN).mean for age_s in AGES_S]
        panel.plot(
            places,
            factors,
            STYLE[ledger],
            color=COLOUR[rule],
            linewidth=1.4,
            marker=".",
            markersize=4,
        )
    drawn = 1 + effect(rows, RANDOM, BASELINE, COLUMN).mean
    panel.axhline(1.0, color="black", linewidth=0.9)
    panel.axhline(drawn, color=COLOURS[7], lw=0.9, linestyle="--")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(TICKS_S, ["fresh", *(f"{age_s:g}" for age_s in TICKS_S[1:])])
    panel.set_yticks(FACTORS, [f"{factor:g}" for factor in FACTORS])
    panel.minorticks_off()


def main() -> None:
    """A panel for each kind of group, number of front ends and way to be old."""
    folder = Path(__file__).parent
    figure, axes = panels(2, 4, height_in=2.1)
    for place, (kind, question, how) in enumerate(product(KINDS, QUESTIONS, HOW)):
        rows = polars.read_csv(folder / f"{question}.csv").filter(polars.col("kind") == kind)
        panel = axes[place]
        draw(panel, rows, how)
        panel.set_ylim(0.7, 20.0)
        panel.set_title(f"{kind}, {QUESTIONS[question]}: {TITLES[how]}", fontsize=9)
        if place % 2 == 0:
            panel.set_ylabel("TTFT / round robin", fontsize=8)
        if place >= 6:
            panel.set_xlabel("age, s", fontsize=8)
    handles = [
        *(Line2D([], [], color=COLOUR[rule], label=rule) for rule in COLOUR),
        *(Line2D([], [], color="#404040", ls=STYLE[mode], label=mode) for mode in STYLE),
        Line2D([], [], color="black", lw=0.9, label=BASELINE),
        Line2D([], [], color=COLOURS[7], lw=0.9, ls="--", label=RANDOM),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    save(figure, "staleness")


if __name__ == "__main__":
    main()
