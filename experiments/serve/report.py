"""What the studies of servers measured, as Markdown made of their CSVs."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def write(folder: Path) -> None:
    """Make results.md of what CSVs a folder has."""
    from experiments.serve import clients_table, overhead_tables, soak_tables

    parts = (clients_table, soak_tables, overhead_tables)
    sections = [part.section(folder) for part in parts]
    text = "\n".join(section for section in sections if section)
    (folder / "results.md").write_text(text)
    print(text)
