"""The pages, and the blocks of code in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in ROOT.glob("docs/**/*.md")}
PAGES["README.md"] = (ROOT / "README.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a page that are in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


def commands(start: str) -> list[tuple[str, str]]:
    """Pages, and what their command lines that begin with ``start`` say up to a ``>``."""
    return [
        (page, line.removeprefix(start).partition(" > ")[0])
        for page in sorted(PAGES)
        for block in blocks(page, "bash")
        for line in block.splitlines()
        if line.startswith(start)
    ]
