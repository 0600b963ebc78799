"""``vllm serve`` with the plug-in: several front-end processes, each with a ledger of its own."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from dpbal.backends.vllm import model
from dpbal.backends.vllm.server import EXECUTOR
from dpbal.backends.vllm.settings import CONFIG
from dpbal.core import LoadTable
from dpbal.sharedmem.segment import FOLDER
from dpbal.transports import Shm
from tests.vllm.place import Place
from tests.vllm.settings import FOLLOWING, write

AT_ONCE = 16


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def complete(url: str, name: str, tokens: list[int]) -> list[int]:
    body = {
        "model": name,
        "prompt": tokens,
        "max_tokens": 4,
        "ignore_eos": True,
        "detokenize": False,
        "return_token_ids": True,
    }
    request = urllib.request.Request(
        f"{url}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        given: list[int] = json.load(answer)["choices"][0]["token_ids"]
    return given


@pytest.mark.slow
def test_every_front_end_process_gets_its_requests_acknowledged(place: Place) -> None:
    folder = place.temporary
    served = str(model.write(folder / "model", False, 1024))
    backend = {"name": "vllm", "kv_capacity_tokens": 8192}
    path = write(folder / "config.yaml", backend=backend, **FOLLOWING)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = place.start(
        *("vllm", "serve", served, "--host", "127.0.0.1", "--port", str(port)),
        *("--skip-tokenizer-init", "--load-format", "dummy", "--enforce-eager"),
        *("--dtype", "bfloat16", "--max-model-len", "1024", "--block-size", "16"),
        *("--data-parallel-size", "2", "--api-server-count", "2"),
        *("--distributed-executor-backend", EXECUTOR),
        **{
            CONFIG: str(path),
            "HF_HUB_OFFLINE": "1",
            "VLLM_HOST_IP": "127.0.0.1",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_NO_USAGE_STATS": "1",
        },
    )
    place.wait(lambda: is_healthy(url), "a healthy server", server)
    (segment,) = FOLDER.glob(f"dpbal-loads-*-{server.pid}-*")
    table = LoadTable(2, 2)
    subscriber = Shm().subscriber(segment.name, table)

    def received() -> list[int]:
        """The last sequence of each front end that any rank has received."""
        subscriber.refresh()
        last: list[int] = table.received_sequence.max(axis=0).tolist()
        return last

    # the kernel chooses the process of a connection, so only one is there to be chosen at a time
    first, second = place.named("APIServer")
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for sent, stopped in (0, second), (AT_ONCE, first):
            stopped.suspend()
            place.wait(lambda: is_healthy(url), "the other front end", server)
            prompts = [[20, 21, 22 + sent + number] for number in range(AT_ONCE)]
            given = threads.map(lambda tokens: complete(url, served, tokens), prompts)
            assert list(given) == [[7] * 4] * AT_ONCE
            stopped.resume()
    place.wait(lambda: sum(received()) == 2 * AT_ONCE, "all acknowledgements", server)
    assert received() == [AT_ONCE, AT_ONCE]
    assert len(set(table.received_epoch.max(axis=0).tolist())) == 2
    assert table.reports["holding_tokens"].tolist() == [0, 0]
    subscriber.close()
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=60)
    place.wait(lambda: not place.left()["processes"], "a clean end")
    assert place.left()["segments"] == place.left()["folders"] == []
