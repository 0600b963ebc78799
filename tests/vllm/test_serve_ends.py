"""A server that ``dpbal-serve`` has started: it answers, it ends as it should, and on two hosts."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from dpbal.backends.vllm.emulated import EXECUTOR, model
from dpbal.core import LoadTable
from dpbal.sharedmem.segment import FOLDER
from dpbal.transports import Shm
from tests.vllm.place import PATIENCE_S, Place
from tests.vllm.test_serve import complete, free_port, is_healthy

pytestmark = pytest.mark.slow

AT_ONCE = 8
LONG_TOKENS = 900


def start(place: Place, served: str, port: int, *arguments: str) -> subprocess.Popen[str]:
    """Start ``dpbal-serve`` on emulated GPUs."""
    return place.start(
        *("dpbal-serve", "+balancer=minimum_tokens", "profile=llama31_8b_h100"),
        *("backend.kv_capacity_tokens=8192", "backend.dilation=20", "--"),
        *(served, "--host", "127.0.0.1", "--port", str(port)),
        *("--skip-tokenizer-init", "--load-format", "dummy", "--enforce-eager"),
        "--disable-uvicorn-access-log",  # nobody reads the pipe until the end
        *("--dtype", "bfloat16", "--max-model-len", "1024", "--block-size", "16"),
        *("--distributed-executor-backend", EXECUTOR, *arguments),
        HF_HUB_OFFLINE="1",
        VLLM_HOST_IP="127.0.0.1",
        VLLM_LOGGING_LEVEL="ERROR",
        VLLM_NO_USAGE_STATS="1",
    )


class Reports:
    """What the two ranks of a server's host report, and have received."""

    def __init__(self, server: subprocess.Popen[str], dispatchers: int) -> None:
        (segment,) = FOLDER.glob(f"dpbal-loads-*-{server.pid}-*")
        self.table = LoadTable(2, dispatchers)
        self._subscriber = Shm().subscriber(segment.name, self.table)

    def running(self) -> list[int]:
        """Requests in the batch of each rank."""
        self._subscriber.refresh()
        return list(map(int, self.table.reports["running"]))

    def has_received(self, sent: int) -> bool:
        """Whether all front ends of the host have sent so many requests to its ranks."""
        self._subscriber.refresh()
        return int(self.table.received_sequence.max(axis=0).sum()) == sent

    def close(self) -> None:
        """Look no more."""
        self._subscriber.close()


def status_of_a_long_one(url: str, name: str, number: int) -> int:
    body = {"model": name, "prompt": [20, 21, number], "max_tokens": LONG_TOKENS}
    body |= {"ignore_eos": True, "detokenize": False}
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_server_whose_engine_is_killed_answers_all_and_says_which(place: Place) -> None:
    served = str(model.write(place.temporary / "model", False, 1024))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = start(place, served, port, "--data-parallel-size", "2", "--api-server-count", "1")
    place.wait(lambda: is_healthy(url), "a healthy server", server)
    reports = Reports(server, 1)
    assert complete(url, served, [20, 21, 22]) == [7] * 4
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = [
            threads.submit(status_of_a_long_one, url, served, number) for number in range(AT_ONCE)
        ]
        place.wait(lambda: sum(reports.running()) == AT_ONCE, "running requests", server)
        assert min(reports.running()) > 0
        place.engines()[1].kill()
        statuses = {answer.result() for answer in answers}
    assert 500 in statuses
    assert statuses <= {200, 500}  # those of the other rank are aborted
    _, errors = server.communicate(timeout=PATIENCE_S)
    assert server.returncode == 1
    assert "dpbal: rank 1 died (EngineCore_DP1" in errors
    assert "killed by SIGKILL" in errors
    assert "Traceback" not in errors
    reports.close()
    place.wait(place.is_empty, "a clean end")


def test_hybrid_nodes_balance_their_own_ranks_and_end_each_in_its_way(place: Place) -> None:
    served = str(model.write(place.temporary / "model", False, 1024))
    group = [
        *("--data-parallel-size", "4", "--data-parallel-size-local", "2"),
        *("--data-parallel-hybrid-lb", "--data-parallel-address", "127.0.0.1"),
        *("--data-parallel-rpc-port", str(free_port())),
    ]
    ports, front_ends = (free_port(), free_port()), (1, 2)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    nodes = []
    for node in range(2):
        own = ["--data-parallel-start-rank", str(2 * node)]
        own += ["--api-server-count", str(front_ends[node])]
        nodes.append(start(place, served, ports[node], *group, *own))
    for url, started in zip(urls, nodes, strict=True):
        place.wait(partial(is_healthy, url), "a healthy node", started)
    reports = [Reports(node, count) for node, count in zip(nodes, front_ends, strict=True)]
    for sent, url, seen in zip((AT_ONCE, 2 * AT_ONCE), urls, reports, strict=True):
        with ThreadPoolExecutor(AT_ONCE) as threads:
            prompts = [[20, 21, 22 + number] for number in range(sent)]
            given = threads.map(partial(complete, url, served), prompts)
            assert list(given) == [[7] * 4] * sent
        place.wait(partial(seen.has_received, sent), "all acknowledgements")
        assert seen.table.received_sequence.max(axis=1).min() > 0  # both ranks have got some
    for seen in reports:
        seen.close()
    place.engines()[3].kill()
    _, errors = nodes[1].communicate(timeout=PATIENCE_S)
    assert nodes[1].returncode == 1
    assert "dpbal: rank 3 died (EngineCore_DP3" in errors
    nodes[0].send_signal(signal.SIGINT)
    _, errors = nodes[0].communicate(timeout=PATIENCE_S)
    assert nodes[0].returncode == 0, errors
    place.wait(place.is_empty, "a clean end")
