"""What a capacity search prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpbal.console import output, title


def show(summary: dict[str, Any], directory: Path) -> None:
    """Print the capacity of each seed, their mean, and where the files are."""
    from rich.table import Table

    console = output()
    slo = summary["config"]["slo"]
    console.print(
        f"[bold]{title(summary)}[/bold]: the highest load at which"
        f" {summary['attainment']:.0%} of the requests are good"
        f" (TTFT {slo['ttft_s']:g} s + {slo['ttft_s_per_prompt_token'] * 1e3:g} ms per token of"
        f" the prompt, TPOT {slo['tpot_s'] * 1e3:g} ms)",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("seed", "load", "requests/s", "load 1 is", "runs"):
        table.add_column(name, justify="right")
    for seed in summary["seeds"]:
        load = seed["verdict"] if seed["load"] is None else f"{seed['load']:.3f}"
        rate = "-" if seed["rate_rps"] is None else f"{seed['rate_rps']:.2f}"
        saturation = f"{seed['saturation_rps']:.2f}/s"
        table.add_row(str(seed["seed"]), load, rate, saturation, str(len(seed["points"])))
    console.print(table)
    for line in (conclusion(summary), *summary["warnings"], f"results in {directory}"):
        console.print(line, highlight=False, soft_wrap=True)


def conclusion(summary: dict[str, Any]) -> str:
    """The result in one line."""
    if summary["load"] is None:
        ends = summary["config"]["capacity"]
        return (
            f"capacity is outside of what was searched, loads {ends['low']:g} to {ends['high']:g}: "
            f"{summary['verdict']}"
        )
    parts = []
    for key, unit in (("load", "of the pooled machine's saturation"), ("rate_rps", "requests/s")):
        value = summary[key]
        ends = "" if value["low"] is None else f" [{value['low']:.3f}, {value['high']:.3f}]"
        parts.append(f"{value['mean']:.3f}{ends} {unit}")
    return "capacity: " + ", ".join(parts) + f" ({_basis(summary)})"


def _basis(summary: dict[str, Any]) -> str:
    count = len(summary["seeds"])
    return f"mean and 95 % interval over {count} seeds" if count > 1 else "1 search, no interval"
