"""Clients that are not ours, and clients that misbehave, against one server with two front ends."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.vllm import malformed
from tests.vllm.place import Place
from tests.vllm.serving import EMULATED, RANKS, Server
from tests.vllm.settings import write
from tests.vllm.test_serve import free_port

if TYPE_CHECKING:
    from openai import AsyncOpenAI

FRONT_ENDS = 2
MAX_MODEL_LEN = 8000
LONG = 7900
"""Tokens that take the emulated GPUs most of a minute."""

EMULATED_TEXT = "#"
"""What the emulated model's only token is in the tokenizer."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    place = Place()
    backend = {"name": "vllm", "kv_capacity_tokens": 128_000}
    config = write(place.temporary / "config.yaml", backend=backend, profile=SLOW)
    started = Server(place, config, free_port(), FRONT_ENDS, MAX_MODEL_LEN, *EMULATED)
    try:
        started.wait()
        yield started
        status = started.stop()
        place.wait(place.is_empty, "a clean end")
        assert status == 0
    finally:
        place.close()


SLOW = {"fixed_s": 0.005, "prefill_s_per_token": 1e-5, "decode_s_per_seq": 1e-5}


@pytest.fixture(autouse=True)
def _ends_idle(server: Server) -> Iterator[None]:
    """Whatever clients did, nothing is left of it."""
    yield
    server.wait_until_idle()


def talk(server: Server, coroutine: Any) -> Any:
    """Run what uses the ``openai`` client."""
    from openai import AsyncOpenAI

    async def run() -> Any:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
            return await coroutine(made)

    return asyncio.run(run())


@pytest.mark.slow
def test_openai_client(server: Server) -> None:
    before = server.dispatched()
    each = 6

    async def use(client: AsyncOpenAI) -> list[str]:
        async def completion(number: int) -> str:
            prompt = f"banana number {number}"
            given = await client.completions.create(model=server.name, prompt=prompt, max_tokens=5)
            assert given.usage is not None
            assert given.usage.completion_tokens == 5
            return given.choices[0].text

        async def streamed(number: int) -> str:
            stream = await client.completions.create(
                model=server.name, prompt=f"melon number {number}", max_tokens=5, stream=True
            )
            return "".join([part.choices[0].text async for part in stream])

        async def chat(number: int) -> str:
            parts: Any = [{"type": "text", "text": f"a pear, number {number}"}]
            given = await client.chat.completions.create(
                model=server.name,
                messages=[
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": parts},
                ],
                max_completion_tokens=5,
            )
            return given.choices[0].message.content or ""

        async def streamed_chat(number: int) -> str:
            stream = await client.chat.completions.create(
                model=server.name,
                messages=[{"role": "user", "content": f"plum {number}"}],
                max_completion_tokens=5,
                stream=True,
            )
            return "".join([part.choices[0].delta.content or "" async for part in stream])

        async def several(number: int) -> str:
            given = await client.completions.create(
                model=server.name, prompt=[f"fig {number}"] * 2, max_tokens=5, n=2
            )
            assert len(given.choices) == 4
            return given.choices[3].text

        kinds = (completion, streamed, chat, streamed_chat, several)
        asked = [kind(number) for kind in kinds for number in range(each)]
        return list(await asyncio.gather(*asked))

    assert talk(server, use) == [EMULATED_TEXT * 5] * 5 * each
    chosen = [now - then for now, then in zip(server.dispatched(), before, strict=True)]
    assert sum(chosen) == 8 * each  # four choices are four requests
    assert min(chosen) > 0


@pytest.mark.slow
def test_openai_client_that_cancels_in_mid_stream(server: Server) -> None:
    before = server.metric("vllm:generation_tokens_total")
    count = 12

    async def use(client: AsyncOpenAI) -> None:
        async def cancel(number: int) -> None:
            stream = await client.completions.create(
                model=server.name, prompt=f"kiwi {number}", max_tokens=LONG, stream=True
            )
            async for _ in stream:
                break
            await stream.close()

        await asyncio.gather(*map(cancel, range(count)))

    talk(server, use)
    server.wait_until_idle()
    # had the engines gone on for nobody, it would be all
    assert server.metric("vllm:generation_tokens_total") - before < count * LONG


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_client_that_disconnects(server: Server, stream: bool) -> None:
    before = server.metric("vllm:generation_tokens_total")
    count = 8
    body = {"model": server.name, "prompt": "a lemon", "max_tokens": LONG, "stream": stream}
    payload = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    open_connections = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        connection.sendall(head.encode() + payload)
        open_connections.append(connection)

    def outstanding() -> int:
        return sum(
            rank["outstanding"] for _, health in server.healths() for rank in health["ranks"]
        )

    server.place.wait(lambda: outstanding() == count, "all requests at engines", server.process)
    if stream:
        assert all(connection.recv(12) == b"HTTP/1.1 200" for connection in open_connections)
    for connection in open_connections:
        connection.close()
    server.wait_until_idle()
    assert server.metric("vllm:generation_tokens_total") - before < count * LONG


@pytest.mark.slow
def test_malformed_requests(server: Server) -> None:
    before = server.dispatched()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    given = []
    for path, headers, body in malformed.posts(server.name):
        status = post(connection, path, headers, body)
        given.append((status, path, str(headers)[:300], body[:300]))
    connection.close()
    answers = [
        send(server, message) for message in malformed.raw(f"127.0.0.1:{server.port}", server.name)
    ]
    assert len(given) + len(answers) >= 100
    assert [asked for asked in given if not 400 <= asked[0] < 500] == []
    assert [answer for answer in answers if answer and answer[:10] != b"HTTP/1.1 4"] == []
    server.wait_until_idle()
    assert server.dispatched() == before


@pytest.mark.slow
def test_headers_that_mean_nothing(server: Server) -> None:
    before = sum(server.dispatched())
    body = json.dumps({"model": server.name, "prompt": "hi", "max_tokens": 2}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    given = [
        post(connection, malformed.COMPLETIONS, headers, body) for headers in malformed.IGNORED
    ]
    connection.close()
    assert given == [200] * len(given)
    assert sum(server.dispatched()) - before == len(given)


def post(
    connection: http.client.HTTPConnection, path: str, headers: dict[str, str], body: bytes
) -> int:
    connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def send(server: Server, message: bytes) -> bytes:
    """Send bytes, hang up after them, and return the beginning of what came back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        with suppress(OSError):  # the server need not listen to the end
            connection.sendall(message)
            connection.shutdown(socket.SHUT_WR)
        try:
            return connection.recv(64)
        except ConnectionError:
            return b""


@pytest.mark.slow
def test_vllm_bench_serve(server: Server, tmp_path: Path) -> None:
    before = server.dispatched()
    count = 24
    bench = server.place.start(
        *("vllm", "bench", "serve", "--backend", "openai", "--base-url", server.url),
        *("--model", server.name, "--dataset-name", "random", "--num-prompts", str(count)),
        *("--random-input-len", "200", "--random-output-len", "20", "--request-rate", "inf"),
        *("--save-result", "--result-dir", str(tmp_path), "--result-filename", "result.json"),
        HF_HUB_OFFLINE="1",
    )
    output, errors = bench.communicate(timeout=300)
    assert bench.returncode == 0, errors
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["completed"], result["failed"]) == (count, 0), output
    assert result["total_output_tokens"] == count * 20
    chosen = [now - then for now, then in zip(server.dispatched(), before, strict=True)]
    assert sum(chosen) >= count  # and one or more that it tries the server with
    assert min(chosen) > 0


@pytest.mark.slow
def test_health_of_every_front_end(server: Server) -> None:
    for number, (status, health) in enumerate(server.healths()):
        assert status == 200
        assert (health["front_end"], health["front_ends"]) == (number, FRONT_ENDS)
        assert "balancer minimum_tokens" in health["combination"]
        assert [rank["rank"] for rank in health["ranks"]] == list(range(RANKS))
        assert {rank["state"] for rank in health["ranks"]} == {"ready"}
        assert {rank["kv_capacity_tokens"] for rank in health["ranks"]} == {128_000}
        assert all(rank["report_age_s"] >= 0 for rank in health["ranks"])
