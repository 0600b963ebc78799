"""Requests that are sent to a server, and what became of each: finished, ended by us, or failed."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum

import aiohttp

from experiments.serve.servers import NAME

LETTERS = "abcdefghijklmnopqrstuvwxyz "


class Way(Enum):
    """How a client goes about a request."""

    stream = "whole stream"
    whole = "whole answer"
    cancel = "cancelled in mid-stream"
    leave = "left before the first token"
    timeout = "very short timeout"


PATIENCE_S = 120.0
"""After so long a request that has not ended is called hung."""

WAYS = {Way.stream: 50, Way.whole: 20, Way.cancel: 14, Way.leave: 8, Way.timeout: 8}
"""Of a hundred requests of the soak."""


@dataclass(frozen=True)
class Wanted:
    """A request.

    Attributes:
        prompt: As text.
        tokens: How many to say.
        way: How the client goes about it.
        after: Chunks, or seconds, after which it gives up.
    """

    prompt: str
    tokens: int
    way: Way = Way.stream
    after: float = 0.0


@dataclass
class Became:
    """What became of a request.

    Attributes:
        way: How the client went about it.
        sent_s: When it was sent, on the monotonic clock.
        end: ``finished``, ``ended`` by the client as it wanted, or what went wrong.
        ttft_s: Seconds from sending to the first token; None without one, or without a stream.
        took_s: Seconds from sending to the end.
        chunks: With tokens, as far as they came.
    """

    way: Way
    sent_s: float
    end: str
    ttft_s: float | None
    took_s: float
    chunks: int


def drawn(seed: int) -> Iterator[Wanted]:
    """Requests of the soak, without an end."""
    source = random.Random(seed)
    ways, weights = list(WAYS), list(WAYS.values())
    while True:
        way = source.choices(ways, weights)[0]
        prompt = "".join(source.choices(LETTERS, k=source.randint(20, 300)))
        tokens = source.randint(8, 64)
        after = {
            Way.cancel: float(source.randint(1, 8)),
            Way.leave: source.uniform(0.0, 0.02),
            Way.timeout: source.uniform(0.001, 0.05),
        }.get(way, 0.0)
        yield Wanted(prompt, tokens, way, after)


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client with as many connections as it needs."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as made:
        yield made


async def send(client: aiohttp.ClientSession, url: str, wanted: Wanted) -> Became:
    """Send a request, and see it to its end."""
    began_s = time.monotonic()
    became = Became(wanted.way, began_s, "", None, 0.0, 0)
    body = {
        "model": NAME,
        "prompt": wanted.prompt,
        "max_tokens": wanted.tokens,
        "ignore_eos": True,
        "stream": wanted.way is not Way.whole,
    }
    gives_up = wanted.way in (Way.leave, Way.timeout)
    try:
        async with asyncio.timeout(wanted.after if gives_up else PATIENCE_S):
            became.end = await _take(client, url, body, wanted, became, began_s)
    except TimeoutError:
        became.end = "ended" if gives_up else "hung"
    except aiohttp.ClientError as error:
        became.end = type(error).__name__
    became.took_s = time.monotonic() - began_s
    return became


async def _take(
    client: aiohttp.ClientSession,
    url: str,
    body: dict[str, object],
    wanted: Wanted,
    became: Became,
    began_s: float,
) -> str:
    async with client.post(f"{url}/v1/completions", json=body) as answer:
        if answer.status != 200:
            return f"status {answer.status}"
        if wanted.way is Way.whole:
            said = await answer.json()
            right = said["usage"]["completion_tokens"] == wanted.tokens
            return "finished" if right else "tokens missing"
        async for line in answer.content:
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                return "finished" if became.chunks else "no token"
            chunk = json.loads(line[6:])
            if "error" in chunk:
                return "error in the stream"
            if became.ttft_s is None:
                became.ttft_s = time.monotonic() - began_s
            became.chunks += 1
            if wanted.way is Way.cancel and became.chunks >= wanted.after:
                answer.close()
                return "ended"
        return "stream without an end"


async def open_loop(
    url: str,
    requests: Iterator[Wanted],
    rate: float,
    goes_on: Callable[[int, float], bool],
    seed: int,
) -> list[Became]:
    """Send requests at random times, however long the others take, and wait for all.

    Args:
        url: Of the server.
        requests: In their order.
        rate: Requests per second, as a Poisson process.
        goes_on: Whether one more is sent, from how many have been and the seconds since the start.
        seed: Of the times.
    """
    source = random.Random(seed)
    done: list[Became] = []
    async with session() as client, asyncio.TaskGroup() as under_way:

        async def one(wanted: Wanted) -> None:
            done.append(await send(client, url, wanted))

        began_s = time.monotonic()
        due_s, sent = 0.0, 0
        while goes_on(sent, time.monotonic() - began_s):
            due_s += source.expovariate(rate)
            await asyncio.sleep(max(0.0, began_s + due_s - time.monotonic()))
            under_way.create_task(one(next(requests)))
            sent += 1
    return done


async def closed_loop(url: str, requests: list[Wanted], at_once: int) -> list[Became]:
    """Send requests so that always as many are under way, until all have been sent."""
    left = iter(requests)
    done: list[Became] = []
    async with session() as client:

        async def one_after_the_other() -> None:
            for wanted in left:
                done.append(await send(client, url, wanted))

        await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return done
