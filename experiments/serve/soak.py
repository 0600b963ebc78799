"""Half an hour of requests that come, go and are broken off, and then an engine that is killed.

    python -m experiments.serve.soak                                   # 33 minutes on 2 cores
    python -m experiments.serve.soak --minutes 2 --every-s 2           # quickly

Two servers side by side, dpbal's and vLLM's own, each of four emulated ranks and two API servers.
Each meets the same requests, at random times at a steady rate: streams and whole answers, streams
that the client cancels after some tokens, and requests whose client leaves before the first token
or waits only milliseconds. Every 10 s goes into soak.csv what each kind of process has: memory,
files, threads, processor time; shared memory, and what requests hold. vLLM may itself grow, so that
dpbal's growth is to be seen beside it.

At the end nothing may be held, and nothing be left when the servers have stopped. Then both are
started once more, and one engine of each is killed under load: all requests must get an answer, an
error or the end of their connection, and the server must end by itself with another status than 0.
What was counted goes into ends.csv.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import polars
import polars.selectors as cs

from dpbal.sharedmem.segment import FOLDER
from experiments.serve import report
from experiments.serve.observe import (
    Reports,
    drained,
    health,
    holds,
    load,
    shared_memory,
    usages,
)
from experiments.serve.requests import Became, Wanted, Way, drawn, open_loop
from experiments.serve.servers import Server, Spec, serving

ARMS: dict[str, tuple[str, ...] | None] = {"dpbal": ("balancer=least_prefill",), "vllm": None}
RATE = 8.0
"""Requests per second to each server."""

KILL_AFTER_S, GOES_ON_S = 15.0, 5.0
"""Seconds of load before an engine is killed, and after."""

PROFILES = {
    "calm": ("profile=llama31_8b_h100",),
    # steps so long that dozens of requests are open when the engine is killed
    "killed": ("profile=llama31_8b_h100", "backend.dilation=5"),
}


class Watch:
    """Looks at a server again and again.

    Attributes:
        arm: What the server is called.
        server: Which.
        reports: What its ranks report; None without dpbal.
        rows: What it saw, a row for each kind of process.
        segments: All shared memory that was ever seen.
    """

    def __init__(self, arm: str, server: Server) -> None:
        """Find what is to be looked at."""
        self.arm = arm
        self.server = server
        self.reports = Reports(server) if server.spec.overrides else None
        self.rows: list[dict[str, Any]] = []
        self.segments: set[str] = set()

    def look(self, at_s: float) -> None:
        """Take a sample."""
        segments = shared_memory(self.server)
        self.segments |= segments
        common = {
            "arm": self.arm,
            "at_s": at_s,
            "segments": len(segments),
            **load(),
            "holds": json.dumps(holds(self.server, self.reports)),
        }
        found = usages(self.server)
        for kind in sorted({usage.kind for usage in found}):
            of_kind = [usage for usage in found if usage.kind == kind]
            sums = {
                name: sum(getattr(usage, name) for usage in of_kind)
                for name in ("rss_mb", "own_mb", "fds", "threads", "cpu_s")
            }
            self.rows.append({**common, "kind": kind, "processes": len(of_kind), **sums})
            common["holds"] = ""  # said once for all kinds

    def end(self) -> dict[str, Any]:
        """What is held when the client has gone, and left when the server has."""
        held = drained(self.server, self.reports)
        acknowledged = self.reports.look()["acknowledged"] if self.reports else None
        status_of_health = health(self.server)
        self.close()
        return {
            "held": json.dumps(held),
            "acknowledged": acknowledged,
            "health": status_of_health,
            "exit_status": self.server.stop(),
            "left": json.dumps(self._left()),
        }

    def killed(self) -> dict[str, Any]:
        """What is left when the server has ended by itself."""
        self.close()
        return {"exit_status": self.server.ended(), "left": json.dumps(self._left())}

    def _left(self) -> dict[str, list[str]]:
        left = self.server.left()
        segments = sorted(name for name in self.segments if (FOLDER / name).exists())
        return {**left, "segments": segments} if segments else left

    def close(self) -> None:
        """Look no more at the reports."""
        if self.reports is not None:
            self.reports.close()
            self.reports = None


def counted(done: list[Became]) -> dict[str, Any]:
    """How requests ended, by how the client went about them."""
    ends = Counter((became.way.value, became.end) for became in done)
    return {
        "sent": len(done),
        "finished": sum(became.end == "finished" for became in done),
        "ended_by_client": sum(became.end == "ended" for became in done),
        "failed": sum(became.end not in ("finished", "ended") for became in done),
        "hung": sum(became.end == "hung" for became in done),
        "ends": json.dumps({f"{way}: {end}": count for (way, end), count in sorted(ends.items())}),
    }


async def lasting(
    watches: list[Watch], minutes: float, every_s: float, rate: float, seed: int, file: Path
) -> list[list[Became]]:
    """Send requests to all servers for so long, and look at them meanwhile."""
    began_s = time.monotonic()

    async def looking() -> None:
        for number in itertools.count():
            await asyncio.sleep(max(0.0, began_s + number * every_s - time.monotonic()))
            for watch in watches:
                await asyncio.to_thread(watch.look, time.monotonic() - began_s)
            rows = [row for watch in watches for row in watch.rows]
            samples = polars.DataFrame(rows, infer_schema_length=None)
            samples.with_columns(cs.float().round(3)).write_csv(file)

    looks = asyncio.create_task(looking())
    done = await asyncio.gather(
        *(
            open_loop(watch.server.url, drawn(seed), rate, lambda _, s: s < 60 * minutes, seed)
            for watch in watches
        )
    )
    looks.cancel()
    with suppress(asyncio.CancelledError):
        await looks
    return done


def long(seed: int) -> Iterator[Wanted]:
    """Requests of which many are open at any time; all want their whole answer."""
    source = random.Random(seed)
    while True:
        way = source.choice((Way.stream, Way.stream, Way.whole))
        yield Wanted("a long answer, please " * source.randint(1, 9), 200, way)


async def killing(watch: Watch, rate: float, seed: int) -> dict[str, Any]:
    """Kill an engine under load, and say what became of the requests that were open."""
    engine = watch.server.place.engines()[1]
    killed_s: list[float] = []

    def goes_on(_: int, since_s: float) -> bool:
        if since_s > KILL_AFTER_S and not killed_s:
            engine.send_signal(signal.SIGKILL)
            killed_s.append(time.monotonic())
        return since_s < KILL_AFTER_S + GOES_ON_S

    watch.look(0.0)
    done = await open_loop(watch.server.url, long(seed), rate, goes_on, seed)
    (at_s,) = killed_s
    were_open = [b for b in done if b.sent_s <= at_s < b.sent_s + b.took_s]
    later = [b for b in done if b.sent_s > at_s]
    return {
        **counted(were_open),
        "longest_s": max((b.sent_s + b.took_s - at_s for b in were_open), default=0.0),
        "sent_later": len(later),
        "later_ends": json.dumps(Counter(b.end for b in later)),
    }


def main() -> None:
    """Run both parts, and write what came of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every-s", type=float, default=10.0, help="seconds between samples")
    parser.add_argument("--rate", type=float, default=RATE, help="requests per second and server")
    parser.add_argument("--api-servers", type=int, default=2, help="front-end processes of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", default=",".join(ARMS), help="servers, with commas between them")
    parser.add_argument("--part", choices=["calm", "killed"], help="both unless given")
    parser.add_argument("--out", type=Path, default=report.HERE)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    arms, ends = args.arms.split(","), []
    file = args.out / "ends.csv"
    if file.exists() and args.part:  # the other part's stay
        ends = polars.read_csv(file).filter(polars.col("part") != args.part).to_dicts()
    for part in [args.part] if args.part else ["calm", "killed"]:
        specs = {
            arm: Spec(ARMS[arm], api_servers=args.api_servers, profile=PROFILES[part])
            for arm in arms
        }
        with ExitStack() as started:
            watches = [
                Watch(arm, started.enter_context(serving(spec))) for arm, spec in specs.items()
            ]
            if part == "calm":
                samples = args.out / "soak.csv"
                every = (args.minutes, args.every_s, args.rate, args.seed)
                done = asyncio.run(lasting(watches, *every, samples))
                for watch, own in zip(watches, done, strict=True):
                    head = {"part": part, "arm": watch.arm, "minutes": args.minutes}
                    ends.append({**head, **counted(own), **watch.end()})
            else:
                for watch in watches:
                    became = asyncio.run(killing(watch, args.rate, args.seed))
                    ends.append({"part": part, "arm": watch.arm, **became, **watch.killed()})
        polars.DataFrame(ends, infer_schema_length=None).write_csv(file)
    report.write(args.out)


if __name__ == "__main__":
    main()
