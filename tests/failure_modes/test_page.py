"""The page of failure modes names tests that are there, and all of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.docs.pages import PAGES, ROOT

PAGE = PAGES["docs/failure_modes.md"]
ROWS = re.findall(r"^\| F(\d+) \|.*\| ([^|]+) \|$", PAGE, re.MULTILINE)
"""Number and tests of each mode."""

WITHOUT_TEST = [27]


def names_in(file: Path) -> list[str]:
    tree = ast.parse(file.read_text())
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[:5] == "test_"
    ]


def test_every_mode_has_its_row_in_order() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 30))


def test_every_row_names_tests_of_its_mode() -> None:
    for number, tests in ROWS:
        named = re.findall(r"`(test_f(\d+)_\w+)`", tests)
        assert bool(named) == (int(number) not in WITHOUT_TEST), f"F{number}"
        assert {int(of) for _, of in named} <= {int(number)}, f"F{number}"


def test_every_test_of_a_mode_is_named_once() -> None:
    named = re.findall(r"`(test_f\d+_\w+)`", PAGE)
    files = Path(__file__).parent.glob("test_*.py")
    there = [name for file in files for name in names_in(file) if re.match(r"test_f\d", name)]
    assert sorted(named) == sorted(there)


def test_tests_elsewhere_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert named
    missing = [f"{file}::{name}" for file, name in named if name not in names_in(ROOT / file)]
    assert missing == []
