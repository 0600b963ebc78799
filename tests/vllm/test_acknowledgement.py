"""A rank says which dispatches it has received, and nobody else sees that they were marked."""

from __future__ import annotations

import pytest

from dpbal.backends.vllm.acknowledgement import HEADER, Dispatched, attach, detach
from tests.vllm.engine import Engine, MakeEngine
from tests.vllm.reports import Watched

TRACE = {"traceparent": "00-1-2-01"}


def send(engine: Engine, request_id: str, *dispatched: int) -> None:
    headers = attach(TRACE, Dispatched(*dispatched)) if dispatched else None
    engine.add(request_id, [20] * 10, max_tokens=2, headers=headers)


def test_each_dispatcher_is_told_the_highest_sequence_that_came(
    make_engine: MakeEngine, watched: Watched
) -> None:
    engine = make_engine()
    for number, dispatched in enumerate([(0, 70, 1), (2, 50, 9), (0, 70, 2), (2, 50, 11)]):
        send(engine, str(number), *dispatched)
    assert watched.received() == [(0, 0)] * 3  # it has not said so yet
    engine.step()
    assert watched.received() == [(70, 2), (0, 0), (50, 11)]


@pytest.mark.parametrize(
    ("dispatched", "received"),
    [
        pytest.param((1, 80, 1), (80, 1), id="a restarted dispatcher"),
        pytest.param((1, 60, 99), (70, 5), id="a request of its life before"),
        pytest.param((1, 70, 3), (70, 5), id="one that was overtaken"),
        pytest.param((3, 70, 6), (70, 5), id="a dispatcher out of the table"),
        pytest.param((-1, 70, 6), (70, 5), id="a dispatcher below the table"),
        pytest.param((), (70, 5), id="a request that dpbal did not send"),
    ],
)
def test_only_what_is_newer_moves_an_acknowledgement(
    make_engine: MakeEngine,
    watched: Watched,
    dispatched: tuple[int, ...],
    received: tuple[int, int],
) -> None:
    engine = make_engine()
    send(engine, "first", 1, 70, 5)
    send(engine, "second", *dispatched)
    engine.step()
    assert watched.received() == [(0, 0), received, (0, 0)]


def test_a_request_that_ends_before_its_first_step_is_acknowledged(
    make_engine: MakeEngine, watched: Watched
) -> None:
    engine = make_engine()
    send(engine, "1", 0, 70, 1)
    engine.abort("1")
    engine.drain()
    assert watched.received()[0] == (70, 1)
    assert watched.report()["holding_tokens"] == 0


def test_trace_headers_of_others_come_through_and_ours_does_not(
    make_engine: MakeEngine, watched: Watched
) -> None:
    engine = make_engine()
    send(engine, "ours and theirs", 0, 70, 1)
    engine.add("ours", [20], max_tokens=2, headers=attach(None, Dispatched(0, 70, 2)))
    engine.add("theirs", [20], max_tokens=2, headers=TRACE)
    engine.drain()
    headers = {output.request_id: output.trace_headers for output in engine.outputs}
    assert headers == {"ours and theirs": TRACE, "ours": None, "theirs": TRACE}


def test_the_largest_numbers_travel() -> None:
    dispatched = Dispatched(127, 2**62, 2**63 - 1)
    headers = attach(TRACE, dispatched)
    assert detach(headers) == (TRACE, dispatched)
    assert HEADER in headers
    assert HEADER not in TRACE
