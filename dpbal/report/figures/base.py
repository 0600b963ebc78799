"""What every figure of a report is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dpbal.report.contents import Contents


@dataclass(frozen=True)
class Drawing:
    """One figure of the page.

    Attributes:
        name: Its anchor.
        title: Above it.
        caption: What is shown, with units, and how to read it: one or two sentences.
        svg: As ``dpbal.report.theme.to_svg`` makes it.
        is_wide: Whether it scrolls in a box of its own where the screen is narrow.
    """

    name: str
    title: str
    caption: str
    svg: str
    is_wide: bool = False


@dataclass(frozen=True)
class Topic:
    """A section of the page.

    Attributes:
        name: Its anchor.
        title: Its heading.
        draw: Its figures; none where the runs do not say it.
        needs: What is missing then, and which command would give it.
    """

    name: str
    title: str
    draw: Callable[[Contents], list[Drawing]]
    needs: str
