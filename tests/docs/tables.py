"""Writes the parts of the pages that follow from the configs, a run or a study.

    python -m tests.docs.tables

A part stands between ``<!-- generated: name -->`` and ``<!-- /generated -->``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.docs.defaults import choices, default_choice, defaults, load

ROOT = Path(__file__).parents[2]
COMMAND = "python -m tests.docs.tables"
FIRST_RUN = "dpbal-run +balancer=minimum_tokens"

CONSTANTS = {
    # field: letter, scale, unit
    "fixed_s": ("a", 1e3, "ms"),
    "prefill_s_per_token": ("b", 1e6, "us/token"),
    "decode_s_per_seq": ("c", 1e6, "us/sequence"),
    "kv_s_per_token": ("d", 1e9, "ns/token"),
    "attention_s_per_pair": ("e", 1e9, "ns/pair"),
    "common_fixed_s": ("A", 1e3, "ms"),
    "common_s_per_token": ("m", 1e6, "us/token"),
    "mixed_penalty_s": ("penalty", 1e3, "ms"),
}


def first_run() -> str:
    """What the first command prints, without the lines that differ from machine to machine."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", "from dpbal.cli import main; main()", *FIRST_RUN.split()[1:]],
            cwd=folder,
            env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    first = next(i for i, line in enumerate(lines) if line.startswith("minimum_tokens + "))
    last = next(i for i, line in enumerate(lines) if line.startswith("simulated "))
    return "\n".join(["```text", *lines[first:last], "```"])


def profiles() -> str:
    """Constants of all profiles in one table, then source, error and evidence of each."""
    heads = [f"{letter}, {unit}" for letter, _, unit in CONSTANTS.values()]
    rows = [
        f"| `profile=` | {' | '.join(heads)} | KV cache of a rank, tokens |",
        "|---" * (len(heads) + 2) + "|",
    ]
    parts: list[str] = []
    for name in choices("profile"):
        values = load("profile", name)
        shown = [f"{values[key] * scale:.5g}" for key, (_, scale, _) in CONSTANTS.items()]
        rows.append(f"| `{name}` | {' | '.join(shown)} | {values['kv_capacity_tokens']:,} |")
        parts += _profile(name, values)
    return "\n".join([*rows, *parts])


def study(name: str) -> str:
    """The tables of a study, as it left them."""
    table = ROOT / "experiments" / name / "results.md"
    return table.read_text().strip() if table.exists() else ""


STUDIES = sorted(path.stem for path in ROOT.glob("docs/studies/*.md") if path.stem != "index")
"""Those that have a page of their own, which bears the name of the study's folder."""

PARTS: dict[str, tuple[Callable[[], str], tuple[str, ...]]] = {
    "first run": (first_run, ("README.md", "docs/index.md")),
    "defaults": (defaults, ("docs/defaults.md",)),
    "profiles": (profiles, ("docs/profiles.md",)),
    "peers": (partial(study, "peers"), ("docs/results.md",)),
    "fidelity": (partial(study, "fidelity"), ("docs/vllm.md",)),
    "level": (partial(study, "level"), ("docs/level.md",)),
    "prefix": (partial(study, "prefix"), ("docs/prefix.md",)),
    "transports": (partial(study, "transports"), ("docs/transports.md",)),
    "faults": (partial(study, "faults"), ("docs/failure_modes.md",)),
    "serve": (partial(study, "serve"), ("docs/serve.md",)),
    "public measurement": (partial(study, "public_measurement"), ("docs/calibration.md",)),
    **{f"study {name}": (partial(study, name), (f"docs/studies/{name}.md",)) for name in STUDIES},
}
"""What makes each part, and the pages that have it."""


def split(page: str, name: str) -> tuple[str, str, str]:
    """A page's text before, in and after a generated part."""
    start, end = f"<!-- generated: {name} -->\n", "<!-- /generated -->"
    before, marker, rest = page.partition(start)
    inside, closing, after = rest.partition(end)
    if not marker or not closing:
        raise ValueError(f"the page has no part between {start.strip()} and {end}")
    return before + start, inside.strip(), end + after


def _profile(name: str, values: dict[str, Any]) -> Iterator[str]:
    default = ", the default" if name == default_choice("profile") else ""
    yield f"\n## {name}{default}\n"
    yield f"{values['model'][0].upper()}{values['model'][1:]}; {values['device']}.\n"
    yield f"* Source: {values['source']}."
    yield f"* Error: {values['error']}."
    letters = {key: letter for key, (letter, _, _) in CONSTANTS.items()} | {
        "kv_capacity_tokens": "KV cache",
    }
    whose: dict[str, list[str]] = {}
    for key, evidence in values["evidence"].items():
        whose.setdefault(evidence, []).append(letters[key])
    for evidence, keys in whose.items():
        yield f"* {', '.join(keys)}: {evidence}."


def main() -> None:
    """Bring every generated part up to date."""
    for name, (make, pages) in PARTS.items():
        text = make()
        for page in pages:
            path = ROOT / page
            before, inside, after = split(path.read_text(), name)
            if inside != text:
                path.write_text(f"{before}\n{text}\n\n{after}" if text else f"{before}{after}")
                print(f"{page}: wrote {name!r}")


if __name__ == "__main__":
    main()
