"""A page as a reader finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from dpbal.report.cli import main

Attributes = dict[str, str | None]


@dataclass
class Page:
    """What is in a page.

    Attributes:
        tags: Every element with its attributes.
        tables: Of each table its rows, of each row its cells.
        text: All of it.
    """

    tags: list[tuple[str, Attributes]] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    text: str = ""

    def attributes(self, tag: str) -> list[Attributes]:
        """Of all elements of a tag."""
        return [attributes for name, attributes in self.tags if name == tag]

    def table(self, heading: str) -> list[list[str]]:
        """The first table that has a column of that name."""
        return next(table for table in self.tables if heading in table[0])


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self.cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.page.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.page.tables.append([])
        elif tag == "tr":
            self.page.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = []

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self.cell is not None:
            self.page.tables[-1][-1].append("".join(self.cell).strip())
            self.cell = None

    def handle_data(self, data: str) -> None:
        self.page.text += data
        if self.cell is not None:
            self.cell.append(data)


def read(html: str) -> Page:
    """Parse a page."""
    reader = _Reader()
    reader.feed(html)
    return reader.page


def report(folder: Path, out: Path, *words: str) -> Page:
    """Run the command and read what it wrote."""
    main([str(folder), "--out", str(out), *words])
    return read(out.read_text(encoding="utf-8"))
