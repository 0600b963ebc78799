"""``GET /dpbal/health`` says of each rank what its front end knows."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dpbal.backends.vllm.front_end.prefixes import Prompt
from dpbal.backends.vllm.settings import REPORTS, Settings
from dpbal.core import LoadTable
from dpbal.parts import build_dispatcher
from dpbal.transports import Shm
from dpbal.transports.base import Publisher
from tests.vllm.settings import config

TWO = 2


class Group:
    """Two ranks' ends of shared memory, and a front end that reads there, as the last of two.

    Args:
        address: Of the shared memory.
        balancer: Its name.
        held: Closes what has been opened.
    """

    def __init__(self, address: str, balancer: str, held: ExitStack) -> None:
        from starlette.datastructures import State

        from dpbal.backends.vllm.front_end.front_end import FrontEnd
        from dpbal.backends.vllm.serve.health import Health

        settings = Settings(config(balancer={"name": balancer}, dispatchers=TWO))
        self._address, self._held = address, held
        self.publishers: list[Publisher] = []
        client = SimpleNamespace(engine_ranks_managed=[4, 5], client_index=1, client_count=TWO)
        if not settings.is_native:
            table = LoadTable(TWO, TWO)
            subscriber = Shm().subscriber(address, table)
            self.front_end = FrontEnd([build_dispatcher(settings.config, table, 1)], subscriber)
            held.callback(self.front_end.close)
            client.front_end = self.front_end
        self.llm: Any = SimpleNamespace(engine_core=client, errored=False)
        self._state = State()
        asyncio.run(Health(settings).init_state(cast("Any", self.llm), self._state, Namespace()))

    def start(self) -> None:
        """Start the ranks, which say what they hold."""
        for rank in range(TWO):
            self.publishers.append(Shm().publisher(self._address, rank))
            self._held.callback(self.publishers[-1].close)
            self.publishers[-1].report["kv_capacity_tokens"] = 1000
            self.publishers[-1].publish()

    def get(self) -> tuple[int, dict[str, Any]]:
        """What a client gets, as its status and what it says."""
        from starlette.requests import Request

        from dpbal.backends.vllm.serve.health import health

        app = SimpleNamespace(state=self._state)
        answer = asyncio.run(health(Request({"type": "http", "app": app})))
        return answer.status_code, json.loads(bytes(answer.body))


@pytest.fixture
def group(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Group]:
    balancer = getattr(request, "param", "minimum_tokens")
    with ExitStack() as held:
        exchange = Shm().create(TWO, TWO)
        held.callback(exchange.close)
        monkeypatch.setenv(REPORTS, exchange.address)
        yield Group(exchange.address, balancer, held)


def states(health: dict[str, Any]) -> list[str]:
    return [rank["state"] for rank in health["ranks"]]


def test_ranks_that_have_not_reported_are_unknown(group: Group) -> None:
    status, health = group.get()
    assert (status, states(health)) == (503, ["no report yet"] * TWO)
    assert [rank["report_age_s"] for rank in health["ranks"]] == [None] * TWO
    assert [rank["holding_tokens"] for rank in health["ranks"]] == [None] * TWO
    assert [rank["outstanding"] for rank in health["ranks"]] == [0] * TWO


def test_ready_ranks(group: Group) -> None:
    group.start()
    status, health = group.get()
    assert (status, states(health)) == (200, ["ready"] * TWO)
    assert (health["front_end"], health["front_ends"]) == (1, TWO)
    assert [rank["rank"] for rank in health["ranks"]] == [4, 5]
    assert [rank["kv_capacity_tokens"] for rank in health["ranks"]] == [1000] * TWO


def test_what_was_sent_is_in_flight_and_outstanding(group: Group) -> None:
    group.start()
    group.front_end.dispatch("a", Prompt(3, [1, 2, 3], 16), pinned_rank=1)
    rank = group.get()[1]["ranks"][1]
    assert (rank["in_flight_requests"], rank["in_flight_tokens"], rank["outstanding"]) == (1, 3, 1)
    group.front_end.finish("a")
    rank = group.get()[1]["ranks"][1]
    assert (rank["in_flight_requests"], rank["in_flight_tokens"], rank["outstanding"]) == (0, 0, 0)


def test_a_rank_with_work_that_says_nothing_has_stalled(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpbal.backends.vllm.serve.health.STALLED_S", 0.0)
    group.start()
    group.front_end.dispatch("a", Prompt(3, [1, 2, 3], 16), pinned_rank=1)
    status, health = group.get()
    assert (status, states(health)) == (503, ["ready", "stalled"])
    group.front_end.finish("a")
    status, health = group.get()
    assert (status, states(health)) == (200, ["ready", "ready"])  # it may be silent without work


def test_a_rank_that_has_ended_is_gone(group: Group) -> None:
    group.start()
    group.publishers[0].close()
    status, health = group.get()
    assert (status, states(health)) == (503, ["gone", "ready"])


def test_a_front_end_without_engines_or_that_ends_is_not_ready(group: Group) -> None:
    group.start()
    group.llm.dpbal_is_draining = True
    assert (group.get()[0], group.get()[1]["draining"]) == (503, True)
    group.llm.dpbal_is_draining = False
    group.llm.errored = True
    assert (group.get()[0], group.get()[1]["engines_alive"]) == (503, False)


@pytest.mark.parametrize("group", ["vllm_native"], indirect=True)
def test_where_vllm_chooses_nothing_is_known_to_be_in_flight(group: Group) -> None:
    group.start()
    status, health = group.get()
    assert (status, states(health)) == (200, ["ready"] * TWO)
    for name in ("in_flight_requests", "in_flight_tokens", "outstanding", "dispatched"):
        assert [rank[name] for rank in health["ranks"]] == [None] * TWO
