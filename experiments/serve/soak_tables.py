"""How servers grew in half an hour, and what was counted at their end, as tables."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

import polars

from experiments.serve.tables import markdown, named


def section(folder: Path) -> str:
    """How what processes have grew, and what was counted at the end."""
    text = ""
    file = folder / "soak.csv"
    if file.exists():
        text += "### Half an hour of requests that come, go and are broken off\n\n"
        text += _growth(polars.read_csv(file), folder / "ends.csv")
    file = folder / "ends.csv"
    if file.exists():
        ends = polars.read_csv(file)
        for part, title, columns in (
            ("calm", "At the end", CALM),
            ("killed", "An engine killed under load", KILLED),
        ):
            own = ends.filter(polars.col("part") == part)
            if len(own):
                text += f"\n**{title}**\n\n" + _ends(own, columns)
    return text


def _growth(samples: polars.DataFrame, ends: Path) -> str:
    """Theil-Sen slopes over the last two thirds, by kind of process and altogether."""
    last_s = float(samples["at_s"].to_numpy().max())
    late = samples.filter(polars.col("at_s") >= last_s / 3)
    per_hour = {}
    if ends.exists():
        for row in polars.read_csv(ends).filter(polars.col("part") == "calm").to_dicts():
            per_hour[row["arm"]] = row["sent"] / row["minutes"] * 60
    heads = (
        "server",
        "processes",
        "own memory, MB: at 1/3",
        "at the end",
        "MB per hour",
        "bytes per request",
        "RSS, MB per hour",
        "files: first / last / most",
        "threads: first / last / most",
        "processor, % of a core",
    )
    rows: list[tuple[str, ...]] = []
    for (arm,), of_arm in late.group_by(["arm"], maintain_order=True):
        everything = of_arm.group_by("at_s", maintain_order=True).agg(
            polars.col("processes", *SUMS).sum(), kind=polars.lit("all")
        )
        kinds = [own for _, own in of_arm.group_by(["kind"], maintain_order=True)]
        for own in [*kinds, everything]:
            grown = slope(own["at_s"], own["own_mb"])
            request = "" if arm not in per_hour else f"{1e6 * grown[0] / per_hour[arm]:.0f}"
            cpu = (own["cpu_s"][-1] - own["cpu_s"][0]) / (own["at_s"][-1] - own["at_s"][0])
            rows.append(
                (
                    str(arm),
                    f"{own['processes'][-1]} {own['kind'][0]}",
                    f"{own['own_mb'][0]:.0f}",
                    f"{own['own_mb'][-1]:.0f}",
                    _interval(grown),
                    request,
                    _interval(slope(own["at_s"], own["rss_mb"])),
                    *(
                        f"{own[name][0]} / {own[name][-1]} / {own[name].max()}"
                        for name in ("fds", "threads")
                    ),
                    f"{100 * cpu:.1f}",
                )
            )
    rows += _differences(late)
    every_s = last_s / max(1, samples["at_s"].n_unique() / samples["arm"].n_unique() - 1)
    notes = [
        f"The last two thirds of {last_s / 60:.0f} minutes, with a sample every "
        f"{every_s:.0f} s. Slopes are Theil-Sen's with its 95 % interval, which takes samples to "
        "be independent: where memory grows in steps it is too narrow. Own memory is what is no "
        "file's, and what a fork shares is divided among the sharers.",
    ]
    for (arm,), of_arm in samples.group_by(["arm"], maintain_order=True):
        segments = of_arm["segments"]
        notes.append(
            f"Names in shared memory of {arm}: {segments[0]} at first, {segments[-1]} at last, "
            f"{segments.max()} at most."
        )
    return markdown(heads, rows) + "\n" + " ".join(notes) + "\n"


def _differences(late: polars.DataFrame) -> list[tuple[str, ...]]:
    """Slopes of what dpbal's server has more than vLLM's at the same time."""
    if late["arm"].n_unique() < 2:
        return []
    rows = []
    for kind in [*sorted(late["kind"].unique()), "all"]:
        chosen = late if kind == "all" else late.filter(polars.col("kind") == kind)
        dpbal, vllm = (
            chosen.filter(polars.col("arm") == arm)
            .group_by("at_s", maintain_order=True)
            .agg(polars.col("own_mb", "rss_mb").sum())
            for arm in ("dpbal", "vllm")
        )
        count = min(len(dpbal), len(vllm))
        dpbal, vllm = dpbal.tail(count), vllm.tail(count)
        own, rss = (dpbal[name] - vllm[name] for name in ("own_mb", "rss_mb"))
        at_s = dpbal["at_s"]
        growths = (_interval(slope(at_s, own)), "", _interval(slope(at_s, rss)))
        ends = (f"{own[0]:+.0f}", f"{own[-1]:+.0f}")
        rows.append(("difference", kind, *ends, *growths, "", "", ""))
    return rows


SUMS = ("rss_mb", "own_mb", "fds", "threads", "cpu_s")


def slope(at_s: polars.Series, values: polars.Series) -> tuple[float, float, float]:
    """Theil-Sen's, per hour, and its 95 % interval."""
    from scipy.stats import theilslopes

    found = theilslopes(values.to_numpy(), at_s.to_numpy() / 3600, alpha=0.95)
    return float(found.slope), float(found.low_slope), float(found.high_slope)


def _interval(found: tuple[float, float, float]) -> str:
    return f"{found[0]:+.1f} [{found[1]:+.1f}, {found[2]:+.1f}]"


CALM: dict[str, Callable[[dict[str, Any]], Any]] = {
    "server": itemgetter("arm"),
    "sent": itemgetter("sent"),
    "finished": itemgetter("finished"),
    "ended by the client": itemgetter("ended_by_client"),
    "failed": itemgetter("failed"),
    "acknowledged by ranks": lambda row: "" if row["acknowledged"] is None else row["acknowledged"],
    "held afterwards": lambda row: named(row["held"]),
    "exit status": itemgetter("exit_status"),
    "left": lambda row: named(row["left"]),
}
"""What a row of ends.csv says after half an hour, by column."""

KILLED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "server": itemgetter("arm"),
    "open when it was killed": itemgetter("sent"),
    "finished": itemgetter("finished"),
    "with an error": lambda row: row["failed"] - row["hung"],
    "hung": itemgetter("hung"),
    "last of them ended after, s": lambda row: f"{row['longest_s']:.1f}",
    "sent later": itemgetter("sent_later"),
    "became of those": lambda row: named(row["later_ends"]),
    "exit status": itemgetter("exit_status"),
    "left": lambda row: named(row["left"]),
}
"""What it says where an engine was killed."""


def _ends(ends: polars.DataFrame, columns: dict[str, Callable[[dict[str, Any]], Any]]) -> str:
    return markdown(
        list(columns), [[cell(row) for cell in columns.values()] for row in ends.to_dicts()]
    )
