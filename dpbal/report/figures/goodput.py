"""The share of good requests under looser and stricter objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dpbal.comparison.load import Run
from dpbal.config import Slo
from dpbal.metrics import are_good, times_s
from dpbal.report import theme
from dpbal.report.contents import Contents, Selection
from dpbal.report.figures.base import Drawing
from dpbal.report.figures.labels import (
    anchor,
    left_out,
    legend_below,
    looks,
    percent_axis,
    titled,
)
from dpbal.report.files import finished

if TYPE_CHECKING:
    import polars

FACTORS = 2.0 ** np.linspace(-2, 2, 33)
"""Of the objectives: from four times as strict to four times as loose."""


@theme.styled
def draw(contents: Contents) -> list[Drawing]:
    """One figure for each setting."""
    drawings = []
    for place, selection in enumerate(contents.selections()):
        measured = shares(contents, selection)
        drawings.append(
            Drawing(
                anchor("goodput", place),
                titled("Goodput against the objectives", selection),
                _caption(contents, selection),
                _curves(selection, measured),
            )
        )
    return drawings


def shares(contents: Contents, selection: Selection) -> list[np.ndarray]:
    """For each combination the share of good requests ``float64[runs, factors]``."""
    return [
        np.array([good_shares(contents.requests(run), objectives(run)) for run in contents.of(one)])
        for one in selection.combinations
    ]


def objectives(run: Run) -> Slo:
    """Those of its config."""
    slo = run.result.config["slo"]  # of another dpbal, it may hold more
    return Slo(slo["ttft_s"], slo["ttft_s_per_prompt_token"], slo["tpot_s"])


def good_shares(requests: polars.DataFrame, slo: Slo, factors: np.ndarray = FACTORS) -> np.ndarray:
    """Share of the offered requests that are good, as ``dpbal.metrics`` has it.

    Args:
        requests: ``requests.parquet``.
        slo: The objectives.
        factors: What they are multiplied by.

    Returns:
        ``float64[factors]``.
    """
    rows = finished(requests)
    ttft_s, _, tpot_s = times_s(rows)
    prompt_tokens = rows["prompt_tokens"]
    good = [are_good(ttft_s, tpot_s, prompt_tokens, slo, factor).sum() for factor in factors]
    return np.array(good) / max(1, len(requests))


def _curves(selection: Selection, measured: list[np.ndarray]) -> str:
    figure, (axes,) = theme.canvas()
    handles, labels = [], []
    for look, values in zip(looks(selection), measured, strict=True):
        (line,) = axes.plot(FACTORS, values.mean(axis=0), look.dashes, color=look.colour)
        if len(values) > 1:
            ends = values.min(axis=0), values.max(axis=0)
            axes.fill_between(FACTORS, *ends, color=look.colour, alpha=0.13, linewidth=0)
        handles.append(line)
        labels.append(look.combination.label)
    axes.axvline(1, color=theme.MUTED, linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
    axes.set_xlim(FACTORS[0], FACTORS[-1])
    axes.set_ylim(0, 1.02)
    percent_axis(axes)
    axes.set_xlabel("objectives times")
    axes.set_ylabel("good requests")
    legend_below(figure, handles, labels)
    return theme.to_svg(figure)


def _caption(contents: Contents, selection: Selection) -> str:
    shown = [contents.of(one) for one in selection.combinations]
    several = [objectives(run) for runs in shown for run in runs]
    slo = several[0]
    per_token = slo.ttft_s_per_prompt_token
    more = f" + {1e3 * per_token:g} ms a prompt token" if per_token else ""
    told = f"they are a TTFT of {slo.ttft_s:g} s{more} and a TPOT of {1e3 * slo.tpot_s:g} ms"
    if any(other != slo for other in several):
        told = "they are those of each combination, whose objectives differ"
    most = max(len(runs) for runs in shown)
    means = (
        f" Means of up to {most} runs, bands from the lowest to the highest." if most > 1 else ""
    )
    return (
        "Share of the offered requests that met both objectives, each multiplied by the factor"
        f" below; at 1 {told}.{means}{left_out(selection)}"
    )
