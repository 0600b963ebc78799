"""The table a run prints: the combination beside round robin and the pooled reference."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ROWS = (
    # label, metric, statistic, scale, unit, digits, key of the closed gap
    ("TTFT mean", "ttft_s", "mean", 1.0, "s", 3, "ttft_mean"),
    ("TTFT p99", "ttft_s", "p99", 1.0, "s", 3, "ttft_p99"),
    ("TPOT mean", "tpot_s", "mean", 1e3, "ms", 1, "tpot_mean"),
    ("ITL p99", "itl_s", "p99", 1e3, "ms", 1, None),
    ("E2E mean", "e2e_s", "mean", 1.0, "s", 2, "e2e_mean"),
    ("output", "output_tokens_per_s", None, 1.0, "tok/s", 0, None),
    ("goodput", "goodput_rps", None, 1.0, "req/s", 2, None),
    ("straggler share", "straggler_share", None, 100.0, "%", 1, None),
)


MOST_LATE = 0.05
"""With a larger share of late steps, the times of an emulation mean little."""

WIDE = 250
"""Characters of a line that goes to a file or a pipe: a table is never cut or folded there."""


def output() -> Console:
    """Standard output: a terminal as wide as it is, all else as wide as a table needs."""
    from rich import get_console
    from rich.console import Console

    terminal = get_console()
    is_told = terminal.is_terminal or "COLUMNS" in os.environ
    return terminal if is_told else Console(width=WIDE)


def show(summary: dict[str, Any], directory: Path) -> None:
    """Print a run's summary and where its files are."""
    from rich.table import Table

    console = output()
    config = summary["config"]
    group = config["group"]
    rate = summary["rate_rps"]
    console.print(
        f"{title(summary)} on {summary['requests']['offered']} requests"
        + (f" at {rate:.2f}/s" if rate is not None else " at once")
        + f", {group['ranks']} {group['kind']} ranks, {config['profile']['model']}"
        f" on {config['profile']['device']} ({ground(summary)})",
        highlight=False,
        markup=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    headings, rows = columns(summary)
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if summary["loss"] is not None:
        console.print(_loss_table(summary["loss"]))
    for line in remarks(summary):
        console.print(line, highlight=False, markup=False)
    console.print(f"results in {directory}", highlight=False, markup=False, soft_wrap=True)


def columns(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """A run beside its references.

    Returns:
        What stands over the numbers: the combination, the references that ran, and the gap closed
        if it is known; and a row a metric, which begins with its label.
    """
    sides = {summary["config"]["balancer"]["name"]: summary}
    for label, key in (("round robin", "baseline"), ("pooled", "pooled")):
        if summary[key] is not None:
            sides[label] = summary[key]
    gaps = summary["gap_closed"]
    rows = []
    for label, metric, statistic, scale, unit, digits, gap in ROWS:
        cells = [_cell(side, metric, statistic, scale, digits) for side in sides.values()]
        if gaps is not None:
            cells.append(_percent(gaps[gap]) if gap else "")
        rows.append([f"{label} ({unit})", *cells])
    return [*sides, *(["gap closed"] if gaps is not None else [])], rows


def loss_columns(loss: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Where the loss to the pooled reference goes.

    Returns:
        The parts that were replaced by the best known, and all of them; and a row a latency: its
        label, what is lost, and the share of it that goes with each of those.
    """
    parts = [*loss["best_known"], "all"]
    rows = []
    for label, _, _, scale, unit, digits, key in ROWS:
        if key is not None:
            lost_s = loss["lost_s"][key]
            lost = "-" if lost_s is None else f"{lost_s * scale:,.{digits}f}"
            shares = [None if loss[part] is None else loss[part]["removed"][key] for part in parts]
            rows.append([f"{label} ({unit})", lost, *map(_percent, shares)])
    return parts, rows


def ground(summary: dict[str, Any]) -> str:
    """What the numbers are of."""
    emulation = summary["emulation"]
    if emulation is None:
        return "simulated"
    return f"{emulation['engines']} engines, emulated GPUs, dilation {emulation['dilation']:g}"


def title(summary: dict[str, Any]) -> str:
    """The combination in a few words, as it was typed."""
    choices, config = summary["choices"], summary["config"]
    parts = [choices[family] for family in ("balancer", "signal", "transport", "budget")]
    return " + ".join([*parts, f"ledger {config['ledger']['mode']}"])


def remarks(summary: dict[str, Any]) -> list[str]:
    """What a reader must know beside the numbers."""
    lines = []
    sides = {"": summary, "round robin, ": summary["baseline"], "pooled, ": summary["pooled"]}
    for whose, side in sides.items():
        counts = {} if side is None else side["requests"]
        lost = {k: counts[k] for k in ("failed", "aborted", "unfinished") if counts.get(k)}
        if lost:
            named = ", ".join(f"{n} {name}" for name, n in lost.items())
            lines.append(f"{whose}not finished: {named}")
    if summary["unstable"]:
        lines.append(
            "unstable: queues grew all along, so latencies depend on the length of the run"
        )
    if summary["baseline"] is not None and summary["baseline"]["unstable"]:
        lines.append("round robin is unstable here, so no share of the gap is given")
    if summary["no_effect"]:
        lines.append("no effect: " + "; ".join(summary["no_effect"]))
    if summary["loss"] is not None:
        lines += _best_known(summary["loss"])
    speed, decisions = summary["speed"], summary["decisions"]
    took = ""
    if decisions["p50_us"] is not None:
        took = f"; dispatch {decisions['p50_us']:.1f} us p50, {decisions['p99_us']:.1f} us p99"
    emulation = summary["emulation"]
    if emulation is not None:
        share = emulation["late_share"]
        if summary["pooled"] is not None:
            lines.append("pooled is simulated: there is no such engine")
        if summary["loss"] is not None:
            lines.append("what is lost to it is simulated too, the combination included")
        lines.append(f"the host came late to {share:.1%} of steps{took}")
        if emulation["engine_prefix_hit_share"]:
            lines.append(
                f"prefix hits: {summary['prefix_hit_share']:.1%} of prompt tokens, "
                f"{emulation['engine_prefix_hit_share']:.1%} by the engines' own count"
            )
        if emulation["alone_share"]:
            lines.append(
                f"in {emulation['alone_share']:.1%} of steps a rank did not know what the others "
                "have, and kept to what is safe alone"
            )
        if share > MOST_LATE:
            lines.append(
                "the host is too slow for this, and the times are not the profile's; "
                f"type backend.dilation={4 * emulation['dilation']:g}"
            )
        return lines
    lines.append(
        f"simulated {speed['requests_per_s']:,.0f} requests/s,"
        f" {speed['rank_steps_per_s']:,.0f} rank steps/s{took}"
    )
    return lines


def _loss_table(loss: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    parts, rows = loss_columns(loss)
    for heading in ("lost to pooled", "", *parts):
        table.add_column(heading, justify="left" if heading == "lost to pooled" else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _best_known(loss: dict[str, Any]) -> list[str]:
    """What the shares of a loss are of, if any is given."""
    parts = [part for part in loss["best_known"] if loss[part] is not None]
    if not any(share is not None for part in parts for share in loss[part]["removed"].values()):
        return []
    names = ", ".join(loss["best_known"][part] for part in parts)
    return [f"lost to pooled: the share that goes with the best known part ({names})"]


def _cell(
    side: dict[str, Any], metric: str, statistic: str | None, scale: float, digits: int
) -> str:
    value = side[metric] if statistic is None else side[metric][statistic]
    return "-" if value is None else f"{value * scale:,.{digits}f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
