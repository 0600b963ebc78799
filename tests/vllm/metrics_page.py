"""How the page of the documentation describes a metric."""

from __future__ import annotations

from dpbal.backends.vllm.metrics.families import LEAST, MOST, NEWEST, SUM, Family

COMBINED = {SUM: "sum", LEAST: "least", MOST: "most", NEWEST: "newest", None: "sum"}


def line(family: Family) -> str:
    """A line of its table."""
    labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
    combined = COMBINED[family.combined]
    if "dispatcher" in family.labels:
        combined = "one each"
    return f"| `{family.exported}` | {family.kind} | {labels} | {family.help} | {combined} |"
