from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import numpy as np
import psutil
import pytest

from dpbal.core import LoadTable, Request
from dpbal.errors import ConfigError, MissingExtraError
from dpbal.ledger import Ledger
from dpbal.transports import TRANSPORTS, Gather, Timing
from dpbal.transports.gather.publisher import GatherError
from tests.transports.gathering import Group
from tests.transports.processes import Process

torch = pytest.importorskip("torch")


@pytest.fixture
def group(start: Callable[..., Process]) -> Iterator[Group]:
    with closing(Group(start, ranks=3)) as made:
        yield made


def test_reports_arrive_when_the_ranks_meet_and_are_as_old_as_their_publication(
    group: Group,
) -> None:
    group.publish(running=5)
    time.sleep(0.2)
    group.step(0)
    assert group.running == [5, 6, 7]
    assert (group.subscriber.ages_s() >= 0.2).all()
    group.publish(running=15)
    group.step(*range(1, 10))
    assert group.running == [5, 6, 7]
    group.step(10)
    assert group.running == [15, 16, 17]
    group.publish(running=0)
    for process in group.ranks:
        process.tell("p.rest()")
    for process in group.ranks:
        process.answer()
    assert group.running == [0, 1, 2]


def test_a_meeting_without_news_is_no_news(group: Group) -> None:
    group.publish(running=1)
    group.step(0)
    group.subscriber.refresh()
    generation = group.table.generation.item()
    group.step(10, 20)
    group.subscriber.refresh()
    assert group.table.generation.item() == generation


def test_a_thousand_dispatches_between_two_meetings_are_all_acknowledged() -> None:
    transport = Gather()
    table = LoadTable(1)
    ledger = Ledger(1, epoch=77)
    with ExitStack() as stack:
        exchange = stack.enter_context(closing(transport.create(1, 1)))
        subscriber = stack.enter_context(closing(transport.subscriber(exchange.address, table)))
        publisher = stack.enter_context(closing(transport.publisher(exchange.address, 0)))
        for step in range(40):
            for _ in range(25):
                ledger.charge(Request(ledger.sequence, 0.0, 10), rank=0, prefill_s=0.1)
            publisher.received_epoch[0], publisher.received_sequence[0] = 77, ledger.sequence
            publisher.publish()
            publisher.step(step + 1)
            subscriber.refresh()
            ledger.observe(table)
            assert ledger.in_flight.requests.tolist() == [(step + 1) * 25 if step < 39 else 0]
    assert ledger.sequence == 1000


def test_nothing_listens_but_on_the_loopback_and_no_group_of_the_process_is_touched(
    group: Group,
) -> None:
    group.step(0)
    listening = {
        (pid, connection.laddr.ip)
        for pid in [psutil.Process().pid, *(process.pid for process in group.ranks)]
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {pid for pid, _ in listening} >= {psutil.Process().pid}
    assert {ip for _, ip in listening} == {"127.0.0.1"}
    assert group.ranks[0].do("import torch; torch.distributed.is_initialized()") is None
    assert group.ranks[0].do("torch.distributed.is_initialized()") is False


def test_a_closed_publisher_neither_publishes_nor_meets() -> None:
    exchange = Gather().create(1, 1)
    publisher = Gather().publisher(exchange.address, 0)
    publisher.step(0)
    publisher.close()
    publisher.close()
    with pytest.raises(ValueError, match="is closed"):
        publisher.publish()
    with pytest.raises(ValueError, match="is closed"):
        publisher.step(0)
    exchange.close()


def test_what_is_wrong_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="interval_steps must be at least 1, got 0"):
        TRANSPORTS.build("gather", {"interval_steps": 0})
    with pytest.raises(ConfigError, match=r"timeout_s must be at least 0\.001 seconds, got 0"):
        TRANSPORTS.build("gather", {"timeout_s": 0.0})
    with pytest.raises(ConfigError, match="backend"):
        TRANSPORTS.build("gather", {"backend": "mpi"})
    exchange = Gather().create(1, 1)
    name, _, _ = exchange.address.rpartition(":")
    with pytest.raises(GatherError, match="is not the address of a gather"):
        Gather().publisher(name, 0)
    exchange.close()
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=r"pip install 'dpbal\[torch\]'"):
        Gather().create(1, 1)


def test_the_simulator_is_told_that_an_idle_rank_does_not_publish() -> None:
    assert Gather(interval_steps=7).timing == Timing(interval_steps=7, publish_on_idle=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_gpus_that_are_not_there_are_one_clear_line() -> None:
    transport = TRANSPORTS.build("gather", {"backend": "nccl"})
    assert isinstance(transport, Gather)
    exchange = transport.create(1, 1)
    with pytest.raises(GatherError, match=r"CUDA device .* type transport\.backend=gloo"):
        transport.publisher(exchange.address, 0)
    exchange.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_one_rank_gathers_from_its_gpu_by_nccl() -> None:
    transport = TRANSPORTS.build("gather", {"backend": "nccl", "interval_steps": 1})
    assert isinstance(transport, Gather)
    exchange = transport.create(1, 3)
    publisher = transport.publisher(exchange.address, 0)
    table = LoadTable(1, 3)
    subscriber = transport.subscriber(exchange.address, table)
    for step in range(100):
        publisher.report["running"] = step
        publisher.received_sequence[:] = [step, 2**62, 3]
        publisher.publish()
        publisher.step(step)
        subscriber.refresh()
        assert table.reports["running"].tolist() == [step]
        assert np.array_equal(table.received_sequence, [[step, 2**62, 3]])
    for end in (publisher, subscriber, exchange):
        end.close()
