"""A server that takes text, for the tests of clients, of its health and of its end."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from dpbal.backends.vllm.emulated import EXECUTOR, model
from dpbal.backends.vllm.serve.endpoints import HEALTH
from dpbal.backends.vllm.settings import CONFIG
from tests.vllm.place import PATIENCE_S, Place

RANKS = 2

EMULATED = ("--distributed-executor-backend", EXECUTOR)
"""Engines without a model; their steps take what the profile says."""


class Met(NamedTuple):
    """A connection to one front end, and how that said it is."""

    connection: http.client.HTTPConnection | None
    status: int
    health: dict[str, Any]


class Server:
    """``vllm serve`` with dpbal, and a model that has a tokenizer and no weights.

    Args:
        place: Where it runs.
        config: What dpbal is to do.
        port: Nobody else's.
        front_ends: API servers.
        max_model_len: Most tokens of a request.
        arguments: Further ones.
    """

    def __init__(
        self,
        place: Place,
        config: Path,
        port: int,
        front_ends: int,
        max_model_len: int,
        *arguments: str,
        **environment: str,
    ) -> None:
        self.place = place
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.front_ends = front_ends
        self.name = str(model.write(place.temporary / "model", False, max_model_len, True))
        self.process: subprocess.Popen[str] = place.start(
            *("vllm", "serve", self.name, "--host", "127.0.0.1", "--port", str(port)),
            *("--load-format", "dummy", "--enforce-eager", "--dtype", "bfloat16"),
            *("--max-model-len", str(max_model_len), "--data-parallel-size", str(RANKS)),
            *("--api-server-count", str(front_ends)),
            "--disable-uvicorn-access-log",  # nobody reads the pipe until the end
            *arguments,
            **{
                CONFIG: str(config),
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "VLLM_HOST_IP": "127.0.0.1",
                "VLLM_LOGGING_LEVEL": "ERROR",
                "VLLM_NO_USAGE_STATS": "1",
                **environment,
            },
        )

    def is_ready(self) -> bool:
        """Whether every front end sees every rank."""
        return all(status == 200 for status, _ in self.healths())

    def wait(self) -> None:
        """Wait until it is ready."""
        self.place.wait(self.is_ready, "a ready server", self.process)

    def wait_until_idle(self) -> None:
        """Wait until no front end has anything in flight, and no rank holds anything."""
        self.place.wait(self.is_idle, "an idle server", self.process)

    def is_idle(self) -> bool:
        """Whether it is."""
        healths = self.healths()
        return all(
            status == 200 and not sum(rank[name] for rank in health["ranks"])
            for status, health in healths
            for name in (
                *("in_flight_requests", "in_flight_tokens", "outstanding"),
                *("running", "waiting", "holding_tokens"),
            )
        )

    @contextmanager
    def front_ends_met(self) -> Iterator[dict[int, Met]]:
        """A connection to each front end, by its number; none to one that does not answer.

        vLLM gives a connection to the front end that has the fewest open, so each is held open
        until all have been met.
        """
        met: dict[int, Met] = {}
        with ExitStack() as held:
            with suppress(OSError):  # it is not up yet, or no more
                for _ in range(64 * self.front_ends):
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                    held.callback(connection.close)
                    connection.request("GET", HEALTH)
                    answer = connection.getresponse()
                    health = json.loads(answer.read())
                    met[health["front_end"]] = Met(connection, answer.status, health)
                    if len(met) == self.front_ends:
                        break
            yield met

    def healths(self) -> list[tuple[int, dict[str, Any]]]:
        """What each front end says, in their order; of one that does not answer, nothing."""
        nothing = Met(None, 0, {"ranks": [], "draining": None})
        with self.front_ends_met() as met:
            return [met.get(number, nothing)[1:] for number in range(self.front_ends)]

    def dispatched(self) -> list[int]:
        """Requests that each rank has got, from all front ends."""
        healths = [health for _, health in self.healths()]
        ranks = [health["ranks"] for health in healths]
        return [sum(seen[rank]["dispatched"] for seen in ranks) for rank in range(RANKS)]

    def metric(self, name: str) -> float:
        """The sum of all samples of one of vLLM's metrics."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        samples = re.findall(rf"^{name}(?:{{[^\n]*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, samples))

    def stop(self) -> int:
        """Ask it to end, and return its status once it has."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.communicate(timeout=PATIENCE_S)
        status = self.process.poll()
        assert status is not None, "the server does not end"
        return status
