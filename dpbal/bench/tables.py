"""The tables that ``dpbal-bench`` prints, each with what it should show and whether it does."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box, get_console
from rich.console import Console
from rich.table import Table

from dpbal.bench.traffic import DESCRIPTION
from dpbal.bench.transport_case import SIDES, Spread

if TYPE_CHECKING:
    from dpbal.bench.dispatch import DispatchRow
    from dpbal.bench.idle import IdleRow
    from dpbal.bench.prefix import PrefixRow
    from dpbal.bench.scale import ScaleRow
    from dpbal.bench.shm import ShmRow
    from dpbal.bench.simulator import Row
    from dpbal.bench.torn import TornRow
    from dpbal.bench.transport import Ratio, TransportRow
    from dpbal.bench.vllm import VllmRow

WIDTH = 130
"""Columns of the tables where there is no terminal to ask."""


def console() -> Console:
    """The terminal, or something wide enough for the tables."""
    terminal = get_console()
    return terminal if terminal.is_terminal else Console(width=WIDTH)


def say(*lines: str) -> None:
    """Print plain lines."""
    for line in lines:
        console().print(line, highlight=False, markup=False, soft_wrap=True)


def simulator(rows: Sequence[Row]) -> None:
    """Rates of the simulator, and whether they reach the target."""
    table = _table(
        "workload", "kind", "balancer", "*ranks", "*requests", "*requests/s\nmin", "*\nmedian",
        "*\nmax", "*1000 rank-\nsteps/s min", "*\nmedian", "*\nmax", "*in dis-\npatch",
        "*core\nshare",
    )  # fmt: skip
    for row in rows:
        rates = [f"{rate:,.0f}" for rate in row.requests_per_s]
        steps = [f"{rate / 1e3:,.0f}" for rate in row.rank_steps_per_s]
        table.add_row(
            row.workload, row.kind, row.balancer, str(row.ranks), f"{row.requests:,}",
            *rates, *steps, f"{row.dispatch_share:.0%}", f"{row.core_share:.0%}",
        )  # fmt: skip
    console().print(table)
    for row in rows:
        if row.target_rps is None:
            continue
        reached = row.requests_per_s[1]
        word = "met" if reached >= row.target_rps else "MISSED"
        say(
            f"{word}: {row.balancer}, {row.kind}, {row.ranks} ranks, {row.requests:,} requests: "
            f"{reached:,.0f} requests/s of {row.target_rps:,.0f} "
            f"(best repeat {row.requests_per_s[2]:,.0f}; had {row.core_share:.0%} of a core)"
        )


def scale(rows: Sequence[ScaleRow]) -> None:
    """Time and memory by number of requests, and whether the one is linear and the other small."""
    table = _table(
        "kind", "balancer", "*ranks", "*requests", "*prepare\ns", "*set-up\ns", "*loop\ns",
        "*report\ns", "*requests/s\nmin", "*\nmedian", "*\nmax", "*core\nshare",
        "*peak MB\nrun", "*with\nreport",
    )  # fmt: skip
    for row in rows:
        times = (row.prepare_s, row.setup_s, row.loop_s, row.report_s)
        table.add_row(
            row.kind, row.balancer, str(row.ranks), f"{row.requests:,}",
            *(f"{seconds:.2f}" for seconds in times),
            *(f"{rate:,.0f}" for rate in row.requests_per_s), f"{row.core_share:.0%}",
            f"{row.peak_rss_run_bytes / 1e6:,.0f}", f"{row.peak_rss_bytes / 1e6:,.0f}",
        )  # fmt: skip
    console().print(table)
    for row in rows:
        smallest = next(r for r in rows if _group(r) == _group(row))
        _, usual, best = (
            few / many
            for few, many in zip(smallest.requests_per_s, row.requests_per_s, strict=True)
        )
        word = "met" if row.peak_rss_bytes < row.target_bytes else "MISSED"
        say(
            f"{word}: {row.balancer}, {row.kind}, {row.requests:,} requests: "
            f"{row.peak_rss_bytes / 1e9:.2f} GB of {row.target_bytes / 1e9:.0f} GB; "
            f"{usual:.2f} times the seconds a request of {smallest.requests:,} "
            f"(best repeats {best:.2f})"
        )


def dispatch(rows: Sequence[DispatchRow], timer_us: float) -> None:
    """Microseconds of a dispatch beside vLLM's loop, and who misses what."""
    say(
        f"one dispatch: {DESCRIPTION}.",
        f"timing adds {timer_us:.2f} us to each number, vLLM's too; it is not subtracted.",
    )
    table = _table(
        "*ranks", "balancer", "signal", "*p50 us", "*min", "*max", "*p99 us", "*target\np50 us",
        "*times\nvLLM's",
    )  # fmt: skip
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before.ranks != row.ranks:
            table.add_section()
        target = "" if row.target_us is None or row.is_reference else f"{row.target_us:.0f}"
        table.add_row(
            str(row.ranks), row.subject, row.signal or "-", f"{row.p50_us:.2f}",
            f"{row.p50_us_min:.2f}", f"{row.p50_us_max:.2f}", f"{row.p99_us:.2f}", target,
            f"{row.share_of_vllm:.2f}",
        )  # fmt: skip
    console().print(table)
    for ranks in dict.fromkeys(row.ranks for row in rows):
        missed = [row for row in rows if row.ranks == ranks and row.misses]
        for row in missed:
            say(f"MISSED: {row.subject}, {ranks} ranks: {', '.join(row.misses)}")
        if not missed:
            say(f"met: every balancer at {ranks} ranks")


def prefix(rows: Sequence[PrefixRow]) -> None:
    """Microseconds by indexer, memory, and whether look-ups are quick enough."""
    table = _table(
        "operation", "indexer", "*ranks", "*blocks", "holders", "*p50 us", "*min", "*max",
        "*p99 us", "*MB per million\nblocks",
    )  # fmt: skip
    for row in rows:
        memory = "" if row.bytes_per_block is None else f"{row.bytes_per_block:.0f}"
        table.add_row(
            row.operation, row.indexer or "-", str(row.ranks or "-"), f"{row.blocks:,}",
            row.holders or "-", f"{row.p50_us:.1f}", f"{row.p50_us_min:.1f}",
            f"{row.p50_us_max:.1f}", f"{row.p99_us:.1f}", memory,
        )  # fmt: skip
    console().print(table)
    for row in rows:
        if row.target_us is not None:
            word = "met" if row.p50_us <= row.target_us else "MISSED"
            subject = ", ".join(filter(None, (row.indexer, row.operation, row.holders)))
            say(
                f"{word}: {subject}: p50 {row.p50_us:.1f} us of {row.target_us:.0f} us "
                f"(best repeat {row.p50_us_min:.1f})"
            )


def shm(rows: Sequence[ShmRow]) -> None:
    """Microseconds of publishing and reading, and whether they are few enough."""
    table = _table(
        "of", "operation", "*ranks", "*calls", "*p50 us", "*min", "*max", "*p99 us",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row.carried, row.operation, str(row.ranks), f"{row.calls:,}", f"{row.p50_us:.2f}",
            f"{row.p50_us_min:.2f}", f"{row.p50_us_max:.2f}", f"{row.p99_us:.2f}",
        )  # fmt: skip
    console().print(table)
    for row in rows:
        if row.target_us is not None:
            word = "met" if row.p50_us <= row.target_us else "MISSED"
            say(
                f"{word}: {row.carried}, {row.operation}, {row.ranks} ranks: "
                f"p50 {row.p50_us:.2f} us of {row.target_us:.0f} us "
                f"(best repeat {row.p50_us_min:.2f})"
            )


def idle(rows: Sequence[IdleRow]) -> None:
    """Cores that idle servers use."""
    table = _table("idle engines of", "*ranks", "*% of a core", "*min", "*max")
    for row in rows:
        shares = (row.core_share, row.core_share_min, row.core_share_max)
        table.add_row(row.subject, str(row.ranks), *(f"{share:.2%}" for share in shares))
    console().print(table)


def vllm(rows: Sequence[VllmRow]) -> None:
    """Microseconds inside vLLM, with dpbal and without."""
    table = _table(
        "operation", "by", "*requests\nor ranks", "caches", "*p50 us", "*min", "*max", "*p99 us",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row.operation, row.subject, str(row.size), "cold" if row.is_cold else "hot",
            f"{row.p50_us:.1f}", f"{row.p50_us_min:.1f}", f"{row.p50_us_max:.1f}",
            f"{row.p99_us:.1f}",
        )  # fmt: skip
    console().print(table)


def torn(rows: Sequence[TornRow]) -> None:
    """Torn reads with the seqlock, of which there must be none, and without it."""
    table = _table(
        "seqlock", "*writers", "*words", "*slot reads", "*torn", "*given up", "*writes", "*s",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            "yes" if row.seqlock else "taken out", str(row.writers), str(row.slot_words),
            f"{row.reads:,}", f"{row.torn:,}", f"{row.given_up:,}", f"{row.writes:,}",
            f"{row.elapsed_s:.1f}",
        )  # fmt: skip
    console().print(table)
    for row in rows:
        if row.seqlock:
            word = "met" if not row.torn else "MISSED"
            say(f"{word}: {row.torn:,} torn in {row.reads:,} slot reads with the seqlock")
        else:
            word = "met" if row.torn else "MISSED"
            say(f"{word}: the same check without it finds {row.torn:,} in {row.reads:,}")


def transport(rows: Sequence[TransportRow], ratios: Sequence[Ratio]) -> None:
    """What it costs ranks and what a dispatcher, and how a dispatch compares with shm's."""
    ranks = rows[0].ranks
    for side, columns in SIDES.items():
        table = _table(f"{ranks} ranks:\n{side}", *(f"*{_wrapped(column)}" for column in columns))
        for row in rows:
            if any(column in row.found for column in columns):
                spreads = (row.found.get(column) for column in columns)
                table.add_row(row.transport, *map(_spread, spreads))
        console().print(table)
    say("each: p50 of the median repeat; the range of p50s over repeats; p99")
    for row in rows:
        if row.failure is not None:
            say(f"{row.transport}, {ranks} ranks: failed: {row.failure}")
    for ratio in ratios:
        word, aim = "", ""
        if ratio.target is not None:
            word = "met: " if ratio.times >= ratio.target else "MISSED: "
            aim = f", of {ratio.target:.0f}"
        say(
            f"{word}{ratio.transport}, {ranks} ranks: {ratio.part}: {ratio.p50_us:,.1f} is "
            f"{ratio.times:,.1f} times the {ratio.reference_us:.2f} of shm{aim}"
        )


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    low, middle, high = (_short(v) for v in (spread.p50_min, spread.p50, spread.p50_max))
    lines = [middle]
    if low != high:
        lines.append(f"{low}..{high}")
    if spread.p99 != spread.p50:
        lines.append(f"p99 {_short(spread.p99)}")
    return "\n".join(lines)


def _wrapped(heading: str) -> str:
    """A heading in lines of few letters."""
    return "\n".join(textwrap.wrap(heading, 11))


def _short(value: float) -> str:
    """Three digits or some more."""
    if value >= 1e4:
        return f"{value / 1e3:,.0f}k"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(*headings: str) -> Table:
    """A table whose columns are right-aligned where the heading starts with a star."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in headings:
        is_number = heading.startswith("*")
        table.add_column(
            heading.lstrip("*"),
            justify="right" if is_number else "left",
            vertical="bottom",
            no_wrap=heading != "signal",
        )
    return table


def _group(row: ScaleRow) -> tuple[str, str, int, str]:
    return row.workload, row.kind, row.ranks, row.balancer
