"""Each request from its arrival to its end, under the rank that it was sent to."""

from __future__ import annotations

from collections.abc import Iterator

import polars
from polars import col

from dpbal.report.trace.events import Args, Event, Process, label, microseconds, thread, track

SHOWN = (
    "outcome",
    "rank",
    "dispatcher",
    "prompt_tokens",
    "output_tokens",
    "cached_tokens",
    "preemptions",
)
"""Columns of ``requests.parquet`` that stand beside a request."""


def events(requests: polars.DataFrame, end_s: float) -> Iterator[Event]:
    """A slice a request, named after its rank so that a viewer shows those of a rank together.

    Inside it ``to first token`` begins at the arrival, with ``before dispatch`` where it was not
    placed at once, and ``decode`` follows. The last part of a request that did not finish says so.
    What never ended ends with the run, and what arrives after that has no length.

    Args:
        requests: ``requests.parquet``.
        end_s: Of the run.
    """
    for rank in requests["rank"].unique().sort():
        yield from thread(Process.requests, rank)
    times = [microseconds(col(name)) for name in ("arrival_s", "dispatch_s", "first_token_s")]
    finish = microseconds(col("finish_s").fill_null(end_s)).alias("finish_s")
    rows = requests.select(*times, finish, *SHOWN).iter_rows()
    for number, (arrival, dispatch, first_token, finish_at, *values) in enumerate(rows):
        args = {"request": number, **dict(zip(SHOWN, values, strict=True))}
        rank = args["rank"]
        name, key = label(rank), (str(number), track(rank))
        end = max(arrival, finish_at)
        answered = end if first_token is None else first_token
        placed = end if dispatch is None else dispatch
        last = "" if args["outcome"] == "finished" else f", {args['outcome']}"
        yield _end("b", key, name, arrival, args)
        if answered > arrival:
            first = f"to first token{last if answered == end else ''}"
            yield _end("b", key, first, arrival)
            if placed > arrival:
                yield _end("b", key, "before dispatch", arrival)
                yield _end("e", key, "before dispatch", placed)
            yield _end("e", key, first, answered)
        if end > answered:
            yield _end("b", key, f"decode{last}", answered)
            yield _end("e", key, f"decode{last}", end)
        yield _end("e", key, name, end)


def _end(ph: str, key: tuple[str, int], name: str, at: int, args: Args | None = None) -> Event:
    number, tid = key
    return Event(ph, Process.requests, tid, name, at, None, "request", {"local": number}, args)
