"""What it costs ranks and a dispatcher to exchange load reports, by transport and group size."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

from dpbal.bench import merged_7379
from dpbal.bench.transport_case import DISPATCH, LOOK, Case, Spread
from dpbal.bench.transport_cell import (
    BALANCER,
    BETWEEN_DECISIONS_S,
    HELD_PER_RANK,
    IN_A_ROW,
    MEET_S,
    measure,
)
from dpbal.errors import ConfigError, DpbalError

MERGED = "pr_7379"

SUBJECTS: dict[str, tuple[str, ...]] = {
    "shm": ("transport=shm",),
    "zmq": ("transport=zmq",),
    "zmq_tcp": ("transport=zmq", "transport.hosts=[127.0.0.1]"),
    "gather": ("transport=gather", f"transport.timeout_s={MEET_S}"),
    "gather_1": (
        "transport=gather",
        f"transport.timeout_s={MEET_S}",
        "transport.interval_steps=1",
    ),
    "manager": ("transport=manager",),
    MERGED: (),
}
"""What is timed: transports with their settings, and what PR #7379 does in a dispatch."""

MOST_RANKS = 1024

START_S, PARTS = 8.0, 5
"""Of a case, about; and in how many parts a repeat of it is timed."""

REFERENCE = "shm"
TARGET_RATIO, TARGET_RANKS = 200.0, 8
"""How many times cheaper a dispatch should be by shared memory than by a manager, at least."""

DESCRIPTION = (
    "each rank is a process, the dispatcher another, the manager's one more. Alone: one rank "
    f"publishes {IN_A_ROW} times, then the next; where ranks meet, all at once; then the "
    "dispatcher looks, and once more with nothing new. At pace: all ranks step and publish after "
    f"each step; decisions come every {BETWEEN_DECISIONS_S * 1e3:.0f} ms on average, at random; "
    "then the dispatcher looks half of the time, for how long a report was under way; then it "
    f"dispatches without a pause ({BALANCER}: look, choose, charge, end of the oldest of "
    f"{HELD_PER_RANK} a rank). {MERGED}: the locked section of its dispatch with "
    f"{merged_7379.IN_FLIGHT} requests of each rank in flight, ranks silent"
)


@dataclass(frozen=True)
class TransportRow:
    """What was found of one transport with one number of ranks.

    Attributes:
        transport: One of ``SUBJECTS``.
        ranks: Number of ranks.
        processes: That took part.
        failure: Why there is nothing more, or None.
        found: Of each quantity, named with its unit, what repeats found.
    """

    transport: str
    ranks: int
    processes: int
    failure: str | None
    found: dict[str, Spread]


@dataclass(frozen=True)
class Ratio:
    """How a part of a dispatch compares with the same by shared memory, in the same run.

    Attributes:
        transport: Which.
        ranks: Number of ranks.
        part: Of a dispatch.
        p50_us: Its p50 by this transport.
        reference_us: That by shared memory.
        target: Least that the ratio should be, or None.
    """

    transport: str
    ranks: int
    part: str
    p50_us: float
    reference_us: float
    target: float | None

    @property
    def times(self) -> float:
        """How many times as much."""
        return self.p50_us / self.reference_us


def measure_all(transports: Sequence[str], case: Case) -> list[TransportRow]:
    """Time transports, each in processes of its own.

    Args:
        transports: Of ``SUBJECTS``.
        case: What they have in common; the overrides are those of ``SUBJECTS``.
    """
    context = multiprocessing.get_context("spawn")
    rows = []
    for transport in transports:
        own = replace(case, overrides=SUBJECTS[transport])
        timed = merged_7379.measure if transport == MERGED else measure
        processes = {MERGED: 2, "manager": case.ranks + 2}.get(transport, case.ranks + 1)
        failure, found = None, {}
        with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
            try:
                found = process.submit(timed, own).result()
            except DpbalError as error:
                failure = str(error)
            except BrokenProcessPool:
                failure = "the dispatcher's process has ended"
        rows.append(TransportRow(transport, case.ranks, processes, failure, found))
    return rows


def ratios(rows: Sequence[TransportRow]) -> list[Ratio]:
    """Each transport's part of a dispatch, and whole dispatches, beside those by shared memory."""
    references = {row.ranks: row.found for row in rows if row.transport == REFERENCE}
    compared = []
    for row in rows:
        reference = references.get(row.ranks, {})
        for part in (LOOK, DISPATCH):
            if row.transport != REFERENCE and part in row.found and part in reference:
                is_manager = row.transport in ("manager", MERGED)
                has_target = is_manager and part == LOOK and row.ranks == TARGET_RANKS
                compared.append(
                    Ratio(
                        row.transport,
                        row.ranks,
                        part,
                        row.found[part].p50,
                        reference[part].p50,
                        TARGET_RATIO if has_target else None,
                    )
                )
    return compared


def check(transports: Sequence[str], ranks: Sequence[int]) -> None:
    """Refuse a group that cannot be on this machine.

    Raises:
        ConfigError: For more processes than is sensible.
    """
    if max(ranks) > MOST_RANKS and set(transports) != {MERGED}:
        raise ConfigError(
            f"--ranks may be up to {MOST_RANKS} here, for each is a process, got {max(ranks)}"
        )
