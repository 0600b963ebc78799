"""A model with weights, if only random ones, run by vLLM's own executor on the CPU."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from dpbal.core import LoadTable
from dpbal.sharedmem.segment import FOLDER
from dpbal.transports import Shm
from tests.vllm.place import Place
from tests.vllm.serving import RANKS, Server
from tests.vllm.settings import write
from tests.vllm.test_drain import Stream
from tests.vllm.test_serve import free_port

AT_ONCE = 16


@pytest.fixture
def _on_cpu() -> None:
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("needs vLLM's CPU backend")


@pytest.mark.slow
@pytest.mark.usefixtures("_on_cpu")
def test_text_in_text_out(place: Place) -> None:
    config = write(place.temporary / "config.yaml")
    small = ("--kv-cache-memory-bytes", str(64 << 20), "--shutdown-timeout", "200")
    server = Server(place, config, free_port(), 1, 1024, *small)
    server.wait()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        texts = list(threads.map(lambda number: complete(server, number), range(AT_ONCE)))
    assert all(texts)
    assert min(server.dispatched()) > 0
    server.wait_until_idle()
    (segment,) = FOLDER.glob(f"dpbal-loads-*-{server.process.pid}-*")
    table = LoadTable(RANKS)
    subscriber = Shm().subscriber(segment.name, table)
    assert table.received_sequence.max() == AT_ONCE
    assert (table.received_sequence > 0).all()
    subscriber.close()
    last = Stream(server, AT_ONCE)
    last.first()
    server.process.terminate()  # here the process of the only front end is the engines' parent
    assert last.rest() == (400, "length")
    errors = server.process.communicate(timeout=300)[1]
    assert server.process.returncode == 0, errors
    place.wait(place.is_empty, "a clean end")


def complete(server: Server, number: int) -> str:
    message = {"role": "user", "content": f"How long is a banana, times {number}?"}
    body = {
        "model": server.name,
        "messages": [message],
        "max_tokens": 12,
        "ignore_eos": True,
        "temperature": 0,
    }
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        given = json.load(answer)
    assert given["usage"]["completion_tokens"] == 12
    text: str = given["choices"][0]["message"]["content"]
    return text
