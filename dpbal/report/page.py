"""Puts a report together: one HTML file that needs nothing else."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dpbal import __version__
from dpbal.comparison.load import incomplete_in
from dpbal.comparison.remarks import unfinished
from dpbal.comparison.table import Sheet, legend
from dpbal.console import remarks, title
from dpbal.report import capacity, overview, tables, theme
from dpbal.report.contents import MOST_SETTINGS, Contents
from dpbal.report.figures import TOPICS
from dpbal.report.figures.base import Drawing

HERE = Path(__file__).parent
TEMPLATE, CSS = "report.html.jinja", "report.css"


def render(contents: Contents, heading: str | None = None) -> str:
    """The page on runs.

    Args:
        contents: What the folder holds.
        heading: Above it; by default what ran.
    """
    comparison = contents.comparison
    is_one = len(contents.runs) == 1
    first = contents.raw(contents.runs[0])
    effects = [] if comparison is None else tables.effects(comparison)
    return _fill(
        heading=heading or _heading(contents),
        badges=overview.badges(contents),
        facts=overview.facts(contents),
        parts=overview.parts(contents),
        notes=remarks(first) if is_one else overview.notes(contents),
        warnings=_warnings(contents),
        single=_single(contents),
        glances=[tables.glance(sheet) for sheet in effects],
        effects=effects,
        unfolded=sum(len(g) for sheet in effects for g in sheet.groups) <= tables.MOST_OPEN,
        legend=[] if comparison is None else legend(comparison),
        only="" if comparison is not None or is_one else _only(contents),
        sections=[(topic, _drawn(topic.draw, contents)) for topic in TOPICS],
        note=_settings(contents),
    )


def render_capacity(folder: Path, searches: list[dict[str, Any]], heading: str | None) -> str:
    """The page on capacity searches, which leave no runs to draw."""
    return _fill(
        heading=heading or f"Capacity: {folder.name or folder.resolve().name}",
        badges=list(dict.fromkeys(overview.badge(one) for one in searches)),
        warnings=unfinished(incomplete_in(folder)),
        notes=capacity.notes(searches),
        single=[capacity.table(searches)],
    )


def picture(drawing: Drawing) -> Markup:
    """Its SVG with a name for those who do not see it."""
    label = escape(f"{drawing.title}. {drawing.caption}", quote=True)
    return Markup(drawing.svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))


def _fill(heading: str, **parts: object) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    nothing: dict[str, object] = {
        name: []
        for name in ("facts", "warnings", "glances", "effects", "legend", "sections", "notes")
    }
    nothing |= {"parts": None, "only": "", "note": "", "unfolded": True}
    return environment.get_template(TEMPLATE).render(
        **nothing
        | parts
        | {
            "heading_text": heading,
            "css": Markup((HERE / CSS).read_text()),
            "left": tables.LEFT,
            "signs": tables.SIGNS,
            "picture": picture,
            "version": __version__,
        }
    )


def _single(contents: Contents) -> list[Sheet]:
    """Tables of one run or one combination, which are compared with nothing."""
    if len(contents.runs) == 1:
        first = contents.raw(contents.runs[0])
        return [found for found in (tables.run_table(first), tables.loss_table(first)) if found]
    if contents.comparison is None:
        return [tables.means_table(contents.blocks[0].combinations[0])]
    return []


def _drawn(draw: Any, contents: Contents) -> list[Drawing]:
    found: list[Drawing] = theme.styled(draw)(contents)
    return found


def _heading(contents: Contents) -> str:
    if len(contents.runs) == 1:
        return title(contents.raw(contents.runs[0]))
    folder = contents.folder.resolve()
    return f"{len(contents.runs)} runs in {folder.name}"


def _only(contents: Contents) -> str:
    label = contents.blocks[0].combinations[0].label
    return (
        f"All runs are of one combination, {label}: there is nothing to compare it with. A second"
        " one in the same folder would be: dpbal-run -m balancer=round_robin,minimum_tokens."
    )


def _settings(contents: Contents) -> str:
    if len(contents.blocks) <= MOST_SETTINGS:
        return ""
    return (
        f"Where figures show single runs, they are of the first {MOST_SETTINGS} of"
        f" {len(contents.blocks)} settings. For others, name a folder that holds only them."
    )


def _warnings(contents: Contents) -> list[str]:
    lines = [] if contents.comparison is None else list(contents.comparison.warnings)
    lines = unfinished(contents.incomplete) + lines
    searches = capacity.count(contents.folder)
    if searches:
        lines.insert(0, f"left out, for they are no runs, capacity searches: {searches}")
    return lines
