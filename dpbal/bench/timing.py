"""The timing of a transport, as it was measured, in a file that the simulator reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dpbal.bench.machine import Load, processor
from dpbal.bench.transport import SUBJECTS, TransportRow
from dpbal.bench.transport_case import LAG, PACE, transport_of


def write(folder: Path, rows: Sequence[TransportRow], load: Load) -> list[Path]:
    """Write ``transport/TRANSPORT_RANKS.yaml`` for each transport whose delay was measured.

    ``delay_s`` is the 5th percentile of the time from publishing to being visible, and ``jitter_s``
    what is from there to the 95th: the simulator draws uniformly between the two. When ranks
    publish is the transport's own.

    Args:
        folder: For ``--config-dir``, which looks for a transport in its folder ``transport``.
        rows: What was measured.
        load: Of the machine, before.

    Returns:
        The files.
    """
    group = folder / "transport"
    group.mkdir(parents=True, exist_ok=True)
    files = []
    for row in rows:
        if LAG in row.found:
            files.append(group / f"{row.transport}_{row.ranks}.yaml")
            files[-1].write_text(text(row, load))
    return files


def text(row: TransportRow, load: Load) -> str:
    """The file of a row."""
    timing = transport_of(SUBJECTS[row.transport]).timing
    lag = row.found[LAG]
    delay_s, jitter_s = lag.p05 / 1e6, (lag.p95 - lag.p05) / 1e6
    pace = row.found[PACE].p50
    return (
        f"# {row.transport} between {row.ranks} ranks at {pace:.0f} steps/s and one dispatcher, as "
        "measured by dpbal-bench transport:\n"
        f"# {processor()}, {load};\n"
        f"# p5 of the lag of {lag.samples:,} reports, and from there to its p95.\n"
        "# A delayed with these values.\n"
        "name: delayed\n"
        f"interval_steps: {timing.interval_steps}\n"
        f"publish_on_prefill: {str(timing.publish_on_prefill).lower()}\n"
        f"publish_on_idle: {str(timing.publish_on_idle).lower()}\n"
        f"interval_s: {timing.interval_s}\n"
        f"delay_s: {delay_s:.7f}\n"
        f"jitter_s: {jitter_s:.7f}\n"
        f"loss: {timing.loss}\n"
    )
