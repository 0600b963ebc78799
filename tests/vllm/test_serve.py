"""``vllm serve`` with the plug-in: several front-end processes, and ranks on several hosts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dpbal.backends.vllm.emulated import EXECUTOR, model
from dpbal.backends.vllm.serve.endpoints import HEALTH
from dpbal.backends.vllm.settings import CONFIG
from dpbal.core import LoadTable
from dpbal.sharedmem.segment import FOLDER
from dpbal.transports import Shm, Zmq
from tests.vllm.place import PATIENCE_S, Place
from tests.vllm.settings import FOLLOWING, write

AT_ONCE = 16


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def free_ports(hosts: list[str], count: int) -> int:
    """The first of some ports in a row that nobody uses, and that no connection takes by chance."""
    for first in range(20_000 + os.getpid() % 1000 * 10, 32_000, count):
        with ExitStack() as tried:
            try:
                for number in range(first, first + count):
                    for host in hosts:
                        tried.enter_context(socket.create_server((host, number)))
            except OSError:
                continue
            return first
    raise OSError("no free ports")


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def states(url: str) -> list[str]:
    """Of all ranks, as the front end sees them."""
    try:
        answer = urllib.request.urlopen(f"{url}{HEALTH}", timeout=60)
    except urllib.error.HTTPError as error:  # one is not ready
        answer = error
    with answer:
        return [rank["state"] for rank in json.load(answer)["ranks"]]


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


def start(place: Place, served: str, config: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a server, or a node of one, on emulated GPUs."""
    return place.start(
        *("vllm", "serve", served, "--host", "127.0.0.1"),
        *("--skip-tokenizer-init", "--load-format", "dummy", "--enforce-eager"),
        "--disable-uvicorn-access-log",  # nobody reads the pipe until the end
        *("--dtype", "bfloat16", "--max-model-len", "1024", "--block-size", "16"),
        *("--distributed-executor-backend", EXECUTOR, "--data-parallel-size", "2"),
        *arguments,
        **{
            CONFIG: str(config),
            "HF_HUB_OFFLINE": "1",
            "VLLM_HOST_IP": "127.0.0.1",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_NO_USAGE_STATS": "1",
        },
    )


BACKEND = {"name": "vllm", "kv_capacity_tokens": 8192}


@pytest.mark.slow
def test_every_front_end_process_gets_its_requests_acknowledged(place: Place) -> None:
    folder = place.temporary
    served = str(model.write(folder / "model", False, 1024))
    path = write(folder / "config.yaml", backend=BACKEND, **FOLLOWING)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = start(place, served, path, "--port", str(port), "--api-server-count", "2")
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
    server.communicate(timeout=PATIENCE_S)
    place.wait(lambda: not place.left()["processes"], "a clean end")
    assert place.left()["segments"] == place.left()["folders"] == []


@pytest.mark.slow
def test_ranks_of_two_hosts_are_balanced_until_one_host_dies(place: Place) -> None:
    folder = place.temporary
    served = str(model.write(folder / "model", False, 1024))
    hosts = ["127.0.0.1", "127.0.0.2"]
    transport: dict[str, Any] = {"hosts": hosts, "port": free_ports(hosts, 4)}
    nodes = {"transport": {"name": "zmq", **transport}, "backend": BACKEND}
    path = write(folder / "config.yaml", **nodes)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    address = ("--data-parallel-address", hosts[0], "--data-parallel-rpc-port", str(free_port()))
    master = ("--data-parallel-size-local", "1", *address)
    first = start(place, served, path, "--port", str(port), "--api-server-count", "1", *master)
    second = start(place, served, path, "--headless", "--data-parallel-start-rank", "1", *master)
    place.wait(lambda: is_healthy(url), "a healthy server", first)
    exchange = Zmq(**transport).create(2, 1)  # as on any host
    table = LoadTable(2)
    subscriber = Zmq(**transport).subscriber(exchange.address, table)

    def received() -> list[int]:
        """The last sequence that each rank has received."""
        subscriber.refresh()
        last: list[int] = table.received_sequence[:, 0].tolist()
        return last

    def send() -> None:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            prompts = [[20, 21, 22 + number] for number in range(AT_ONCE)]
            given = threads.map(lambda tokens: complete(url, served, tokens), prompts)
            assert list(given) == [[7] * 4] * AT_ONCE

    send()
    place.wait(lambda: max(received()) == AT_ONCE, "all acknowledgements", first)
    assert min(received()) > 0
    assert table.reports["holding_tokens"].tolist() == [0, 0]
    assert states(url) == ["ready", "ready"]
    last = received()[1]
    place.engines()[1].kill()
    second.communicate(timeout=PATIENCE_S)
    place.wait(lambda: bool(received()) and not table.selectable[1], "silence of a host", first)
    place.wait(lambda: states(url) == ["ready", "gone"], "a rank that is gone", first)
    send()
    place.wait(lambda: received() == [2 * AT_ONCE, last], "all acknowledgements", first)
    subscriber.close()
    exchange.close()
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=PATIENCE_S)
    place.wait(place.is_empty, "a clean end")
