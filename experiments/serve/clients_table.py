"""What clients that others wrote completed, as a table."""

from __future__ import annotations

from pathlib import Path

import polars

from experiments.serve.tables import markdown, named


def section(folder: Path) -> str:
    """Of each client what it completed, and what the server held afterwards."""
    file = folder / "clients.csv"
    if not file.exists():
        return ""
    heads = (
        "group",
        "API servers",
        "client",
        "streams",
        "requests",
        "completed",
        "failed",
        "acknowledged by ranks",
        "held afterwards",
        "exit status",
        "left",
        "load of machine",
    )
    rows = [
        (
            row["group"],
            row["api_servers"],
            row["client"],
            "yes" if row["streams"] else "no",
            row["requests"],
            row["completed"],
            row["failed"],
            row["acknowledged"],
            named(row["held"]),
            row["exit_status"],
            named(row["left"]),
            f"{row['load_1min']:.1f}",
        )
        for row in polars.read_csv(file).to_dicts()
    ]
    return "### Clients that others wrote\n\n" + markdown(heads, rows)
