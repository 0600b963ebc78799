"""Colours of the figures as variables of the page, so that one SVG serves light and dark."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

BLUE, ORANGE, GREEN, RED = "#1f6fb4", "#c75f0a", "#2b8a3e", "#c0325a"
PURPLE, OCHRE, TEAL, SLATE = "#7a4fc0", "#8a6d1c", "#0d8585", "#5b6470"
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, OCHRE, TEAL, SLATE)
"""For what is told apart by colour; on a scale, one of them with an alpha."""

FOREGROUND, MUTED, GRID, FAINT = "#1d2329", "#59636d", "#d9dee3", "#e6e9ec"
BACKGROUND = "#fefefe"
"""Text; what matters less, such as a baseline; lines behind; areas behind; the page."""

VARIABLES = {
    **{colour: f"--c{number}" for number, colour in enumerate(PALETTE, 1)},
    FOREGROUND: "--foreground",
    MUTED: "--muted",
    GRID: "--grid",
    FAINT: "--faint",
    BACKGROUND: "--background",
}
"""The variable that takes the place of each; ``report.css`` says what it is in light and dark."""

SMALL = (4.2, 2.9)
"""Inches of a figure that is read at the width of a phone."""
WIDE = (9.2, 3.4)
"""Inches of one that is wider than that."""

STYLE: Any = {
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": FOREGROUND,
    "axes.labelsize": 9.0,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=list(PALETTE)),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "font.size": 9.0,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "hatch.color": FOREGROUND,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.labelcolor": FOREGROUND,
    "lines.linewidth": 1.6,
    "patch.edgecolor": "none",
    "patch.force_edgecolor": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "dpbal",  # the same figure each time
    "text.color": FOREGROUND,
    "text.parse_math": False,  # a name may hold a $
    "xtick.color": MUTED,
    "xtick.labelcolor": FOREGROUND,
    "xtick.labelsize": 8.5,
    "ytick.color": MUTED,
    "ytick.labelcolor": FOREGROUND,
    "ytick.labelsize": 8.5,
}

SHARED_ID = re.compile(r'( id="|href="#|url\(#)')
SHORTER = (
    (re.compile(r"<(metadata|style).*?</\1>", re.DOTALL), ""),
    (re.compile(r'<g id="[^"]*"'), "<g"),
    (re.compile(r"(font: [^;\"]*?\dpx) [^;\"]*"), r"\1 var(--font)"),
    (re.compile(r" font-family: [^;\"]*;"), ""),
    (re.compile(r' transform="rotate\(-?0 [^"]*"'), ""),
    (re.compile(r"\s*\n\s*"), "\n"),
    (re.compile(r" \n"), " "),
)
"""What the page says once for all figures."""
PLACES = re.compile(r' (?:d|x|y|width|height|transform)="[^"]*"')
FINER = re.compile(r"(\.\d\d)\d+")
"""Digits of a place that nobody can see."""


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw in this style whatever the user's own matplotlib settings are."""

    @wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return in_style


@styled
def canvas(size: tuple[float, float] = SMALL, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many inches, its plots one above the other."""
    figure = Figure(figsize=size)
    axes = figure.subplots(rows, 1, squeeze=False)
    return figure, [row[0] for row in axes]


@styled
def to_svg(figure: Figure) -> str:
    """The figure as an SVG element for the page: no size of its own, the page's font and colours.

    The same figure gives the same text, and ids that no other figure of the page has.
    """
    out = io.BytesIO()
    with warnings.catch_warnings():
        # the browser has glyphs that matplotlib's own font lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    whole = out.getvalue().decode()
    svg = whole[whole.index("<svg") :].strip()
    head, rest = svg.split(">", 1)
    view = re.search(r'viewBox="([^"]*)"', head)
    rest = rest.replace("xlink:href", "href")
    for pattern, text in SHORTER:
        rest = pattern.sub(text, rest)
    rest = PLACES.sub(lambda place: FINER.sub(r"\1", place[0]), rest)
    prefix = f"f{hashlib.blake2b(svg.encode(), digest_size=4).hexdigest()}-"
    rest = SHARED_ID.sub(rf"\g<1>{prefix}", rest)
    for colour, name in VARIABLES.items():
        rest = rest.replace(colour, f"var({name})")
    return f'<svg viewBox="{view[1] if view else ""}">{rest}'
