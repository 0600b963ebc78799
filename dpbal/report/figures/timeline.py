"""Some steps of all ranks in the middle of a run: who prefills, who decodes, who waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from dpbal.comparison.load import Run
from dpbal.report import theme
from dpbal.report.contents import Contents
from dpbal.report.figures.base import Drawing
from dpbal.report.figures.labels import anchor, left_out, under
from dpbal.report.files import is_lockstep

if TYPE_CHECKING:
    import polars

COLOURS = {
    "decode": theme.BLUE,
    "prefill": theme.ORANGE,
    "waiting": theme.BACKGROUND,
    "common": theme.GRID,
}
"""Parts of a step in the order they are drawn; which comes first in it is not known."""
MEANING = {
    "decode": "decode",
    "prefill": "prefill",
    "waiting": "waits for the slowest",
    "common": "common part",
}
SPAN_S = 1.0
FEWEST_STEPS = 8
MOST_STEPS = 40
MOST_BOXES = 2000
"""Of a figure, as they make its size."""
MOST_RANKS = 32
MOST = 3
"""Combinations, of the first setting."""
BAR = 0.84


@dataclass(frozen=True)
class Window:
    """Some steps of a run.

    Attributes:
        steps: Rows of ``steps.parquet``; of ranks that step alone the first and last may go beyond.
        begin_s: Where the figure begins.
        end_s: And ends.
    """

    steps: polars.DataFrame
    begin_s: float
    end_s: float


@theme.styled
def draw(contents: Contents) -> list[Drawing]:
    """One wide figure for each of a few combinations."""
    drawings: list[Drawing] = []
    for selection in contents.selections()[:1]:
        also = under(selection, len(contents.blocks)) + left_out(selection, MOST)
        for combination in selection.combinations[:MOST]:
            (run,) = contents.of(combination, 1)
            window = middle(contents.steps(run), is_lockstep(run))
            if not window.steps.is_empty():
                name = anchor("timeline", len(drawings))
                caption = _caption(run, window.steps) + also
                drawings.append(
                    Drawing(name, combination.label, caption, _bars(run, window), is_wide=True)
                )
    return drawings


def middle(steps: polars.DataFrame, is_lockstep: bool) -> Window:
    """The steps of about a second from the middle of the run on, of at most so many ranks.

    It is longer where that second holds too few steps, and shorter where it holds too many.
    """
    import polars

    start, end = polars.col("start_s"), polars.col("end_s")
    kept = steps.filter(polars.col("rank") < MOST_RANKS)
    if kept.is_empty():
        return Window(kept, 0.0, 0.0)
    ranks = kept["rank"].n_unique()
    begin_s = float(kept.select((start.min() + end.max()) / 2).item())
    begin_s = min(begin_s, float(kept.select(start.max()).item()))
    later_s = kept.filter(start >= begin_s)["start_s"]
    starts_s = (later_s.unique() if is_lockstep else later_s).sort()
    each = 1 if is_lockstep else ranks
    fewest, most = FEWEST_STEPS * each, min(MOST_STEPS, MOST_BOXES // (4 * ranks)) * each
    within = int((starts_s < begin_s + SPAN_S).sum())
    last_s = float(starts_s[min(max(within, fewest), most, len(starts_s)) - 1])
    if is_lockstep:
        begin_s = float(starts_s[0])
        shown = kept.filter(start.is_between(begin_s, last_s))
        return Window(shown, begin_s, float(shown.select(end.max()).item()))
    shown = kept.filter((end > begin_s) & (start <= last_s))
    return Window(shown, begin_s, last_s)


def parts_s(
    steps: polars.DataFrame, prefill_s_per_token: float, is_lockstep: bool
) -> dict[str, np.ndarray]:
    """What each step and rank spends its seconds on; together ``end_s - start_s``.

    A rank's own time is divided by what its prompts' tokens cost; their attention, which the table
    does not tell apart, counts as decode.
    """
    start_s, end_s, local_s = (steps[name].to_numpy() for name in ("start_s", "end_s", "local_s"))
    longest_s = local_s
    if is_lockstep:
        _, step = np.unique(start_s, return_inverse=True)
        longest_s = np.zeros(step.max() + 1)
        np.maximum.at(longest_s, step, local_s)
        longest_s = longest_s[step]
    prefill_s = np.minimum(local_s, steps["prefill_tokens"].to_numpy() * prefill_s_per_token)
    return {
        "decode": local_s - prefill_s,
        "prefill": prefill_s,
        "waiting": longest_s - local_s,
        "common": end_s - start_s - longest_s,
    }


def _caption(run: Run, steps: polars.DataFrame) -> str:
    count = steps["start_s"].n_unique() if is_lockstep(run) else len(steps)
    ranks, shown = run.result.config["group"]["ranks"], _ranks(run)
    of = f" of the first {shown} of {ranks} ranks" if ranks > shown else " of all ranks"
    end = (
        " The common part, such as experts, all ranks do together; a thin line ends a step."
        if is_lockstep(run)
        else " The common part is what a rank pays for exchange and experts; gaps are idle time."
    )
    return (
        f"{count} steps{of} in the middle of one run (seed {run.result.seed}). Within a step the"
        f" parts have their lengths, not their order; attention of prompts counts as decode.{end}"
    )


def _ranks(run: Run) -> int:
    """How many are shown, whether or not they have a step in the window."""
    return min(int(run.result.config["group"]["ranks"]), MOST_RANKS)


def _bars(run: Run, window: Window) -> str:
    steps, profile = window.steps, run.result.config["profile"]
    parts = parts_s(steps, float(profile["prefill_s_per_token"]), is_lockstep(run))
    ranks, last = steps["rank"].to_numpy(), _ranks(run) - 1
    at_s = steps["start_s"].to_numpy() - window.begin_s
    figure, (axes,) = theme.canvas((9.2, min(5.0, 1.35 + 0.17 * (last + 1))))
    for name, length_s in parts.items():
        _boxes(axes, ranks, at_s * 1e3, np.maximum(length_s, 0) * 1e3, COLOURS[name])
        at_s = at_s + length_s
    if is_lockstep(run):
        ends_ms = (steps["end_s"].unique().sort().to_numpy() - window.begin_s) * 1e3
        axes.vlines(ends_ms, -0.5, last + 0.5, color=theme.FOREGROUND, linewidth=0.4)
    axes.set_xlim(0, (window.end_s - window.begin_s) * 1e3)
    axes.set_ylim(last + 0.6, -0.6)
    axes.grid(visible=False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("time, ms")
    axes.set_ylabel("rank")
    handles = [
        Patch(facecolor=COLOURS[name], edgecolor=theme.MUTED, linewidth=0.25, label=MEANING[name])
        for name in _shown(parts)
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return theme.to_svg(figure)


def _shown(parts: dict[str, np.ndarray]) -> Iterator[str]:
    return (name for name, length_s in parts.items() if length_s.max() > 1e-9)


def _boxes(axes: Axes, ranks: np.ndarray, left: np.ndarray, width: np.ndarray, colour: str) -> None:
    """All boxes of a part as one path, which takes a tenth of their size as elements."""
    kept = width > 0
    if not kept.any():
        return
    low, high = ranks[kept] - BAR / 2, ranks[kept] + BAR / 2
    start, end = left[kept], left[kept] + width[kept]
    corners = np.stack([start, low, end, low, end, high, start, high, start, low], axis=1)
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    path = Path(corners.reshape(-1, 2), np.tile(codes, int(kept.sum())))
    axes.add_patch(PathPatch(path, facecolor=colour, edgecolor=theme.MUTED, linewidth=0.25))
