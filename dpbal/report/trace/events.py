"""The Trace Event Format: one event, and a file of them that is written as they come."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from itertools import islice
from typing import Any, BinaryIO, TypeAlias

import msgspec
import polars

Args: TypeAlias = "Mapping[str, Any]"

CHUNK = 4096
"""Events that are encoded together."""

LEVEL = 5
"""Of gzip: a higher one takes longer and saves next to nothing here."""

FIRST_TRACK = 1000
"""Number of rank 0's: Perfetto gives 0, and the number of a group itself, a meaning of its own."""


class Process(IntEnum):
    """Groups of tracks, in the order they are shown; a viewer calls them processes."""

    run = 1
    steps = 2
    requests = 3
    waiting = 4
    running = 5
    prefill = 6
    kv = 7


class Event(msgspec.Struct, omit_defaults=True):
    """One event.

    Attributes:
        ph: Kind: ``X`` a slice, ``b`` and ``e`` the ends of one that may overlap others, ``C`` a
            counter, ``M`` a name.
        pid: Which group of tracks.
        tid: Which track of it, as ``track`` says.
        name: As shown.
        ts: Microseconds since the run began.
        dur: Length in microseconds, of a slice.
        cat: Category.
        id2: What the ends of an overlapping slice have in common, within their group.
        args: Shown beside a selected slice; the value of a counter.
    """

    ph: str
    pid: Process
    tid: int
    name: str
    ts: int
    dur: int | None = None
    cat: str | None = None
    id2: Mapping[str, str] | None = None
    args: Args | None = None


def microseconds(seconds: polars.Expr) -> polars.Expr:
    """Whole ones, so that ends that touch in the run touch in every viewer."""
    return (seconds * 1e6).round().cast(polars.Int64)


def process(pid: Process, name: str) -> Iterator[Event]:
    """The name and place of a group of tracks."""
    yield Event("M", pid, 0, "process_name", 0, args={"name": name})
    yield Event("M", pid, 0, "process_sort_index", 0, args={"sort_index": int(pid)})


def track(rank: int | None) -> int:
    """The number of a rank's track; that before the first is of what has no rank."""
    return FIRST_TRACK - 1 if rank is None else FIRST_TRACK + rank


def label(rank: int | None) -> str:
    """Its name."""
    return "no rank" if rank is None else f"rank {rank}"


def thread(pid: Process, rank: int | None, name: str | None = None) -> Iterator[Event]:
    """The name and place of a track, by default its rank."""
    tid, name = track(rank), name or label(rank)
    yield Event("M", pid, tid, "thread_name", 0, args={"name": name})
    yield Event("M", pid, tid, "thread_sort_index", 0, args={"sort_index": tid})


def write(file: BinaryIO, about: Args, events: Iterable[Event]) -> None:
    """Write a trace as gzipped JSON; the same events give the same bytes.

    Args:
        file: Where to.
        about: What the trace is of.
        events: All of them.
    """
    encoder = msgspec.json.Encoder()
    source = iter(events)
    # neither the name nor the time of the file goes into it
    with gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as out:
        out.write(b'{"displayTimeUnit":"ms","otherData":' + encoder.encode(about))
        opening = b',"traceEvents":[\n'
        while chunk := list(islice(source, CHUNK)):
            out.write(opening + b",\n".join([encoder.encode(event) for event in chunk]))
            opening = b",\n"
        out.write(b"\n]}\n")
