"""A server that is asked to end lets its running requests finish."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.vllm.place import Place
from tests.vllm.serving import EMULATED, Server
from tests.vllm.settings import write
from tests.vllm.test_serve import free_port

FRONT_ENDS = 2
STREAMS = 8
TOKENS = 400


@pytest.mark.slow
def test_sigterm_lets_streams_finish_and_refuses_new_requests(place: Place) -> None:
    backend = {"name": "vllm", "kv_capacity_tokens": 16_384}
    config = write(place.temporary / "config.yaml", backend=backend)
    patient = ("--shutdown-timeout", "200")
    server = Server(place, config, free_port(), FRONT_ENDS, 1024, *EMULATED, *patient)
    server.wait()
    streams = [Stream(server, number) for number in range(STREAMS)]
    with ThreadPoolExecutor(STREAMS) as threads:
        list(threads.map(Stream.first, streams))
        engines = place.engines()
        for engine in engines:  # so that no stream ends before the server knows that it shall
            engine.suspend()
        server.process.terminate()
        place.wait(lambda: is_draining(server), "a server that drains", server.process)
        with server.front_ends_met() as met:
            assert len(met) == FRONT_ENDS
            for connection, status, _ in met.values():
                assert status == 503
                assert connection is not None
                assert ask(connection, server, 3, False).status == 503
                assert ask(connection, server, 3, True).status == 503
        for engine in engines:
            engine.resume()
        given = list(threads.map(Stream.rest, streams))
    assert given == [(TOKENS, "length")] * STREAMS
    errors = server.process.communicate(timeout=300)[1]
    assert server.process.returncode == 0, errors
    place.wait(place.is_empty, "a clean end")


def is_draining(server: Server) -> bool:
    return all(health["draining"] for _, health in server.healths())


def ask(
    connection: http.client.HTTPConnection, server: Server, tokens: int, stream: bool
) -> http.client.HTTPResponse:
    body = {
        "model": server.name,
        "prompt": "a pear",
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": stream,
        "stream_options": {"include_usage": True} if stream else None,
    }
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    if answer.status != 200:
        answer.read()
    return answer


class Stream:
    """A streamed completion."""

    def __init__(self, server: Server, number: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
        self._server = server

    def first(self) -> None:
        """Start it, and wait for its first token."""
        self._answer = ask(self._connection, self._server, TOKENS, True)
        assert self._answer.status == 200
        assert self._answer.readline().startswith(b"data: ")

    def rest(self) -> tuple[int, str]:
        """Read it to its end: how many tokens it had, and why it ended."""
        tokens, reason = 0, ""
        lines = [line[6:] for line in self._answer.read().splitlines() if line]
        self._connection.close()
        assert lines[-1] == b"[DONE]"
        for part in map(json.loads, lines[:-1]):
            if part.get("usage"):
                tokens = part["usage"]["completion_tokens"]
            for choice in part["choices"]:
                reason = choice["finish_reason"] or reason
        return tokens, reason
