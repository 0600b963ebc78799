from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dpbal.core import LoadTable, Request
from dpbal.ledger import Ledger
from dpbal.sharedmem import Segment, SharedMemoryError
from dpbal.transports import Exchange, Shm
from tests.docs.pages import blocks
from tests.transports.processes import Process


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    made = Shm().create(2, 1)
    yield made
    made.close()


DIES_IN_MID_WRITE = """
import os, signal, time
from dpbal.sharedmem.atomics import store_relaxed
from dpbal.transports import Shm
from dpbal.transports.shm import seqlock
from dpbal.transports.records import EPOCH
p = Shm().publisher({address!r}, 0)
p.report["running"] = 1
p.publish()
def die():
    seqlock.begin(p._slot)
    p._segment.array("int64", (EPOCH + 2,), p._slot - p._segment.address)[1:] = 12345
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_writer_killed_in_mid_write_leaves_its_last_report_and_can_start_again(
    exchange: Exchange, start: Callable[[str], Process]
) -> None:
    table = LoadTable(2)
    subscriber = Shm().subscriber(exchange.address, table)
    writer = start(DIES_IN_MID_WRITE.format(address=exchange.address))
    subscriber.refresh()
    report = table.reports[0].copy()
    writer.tell("die()")
    writer.end()
    for _ in range(3):
        subscriber.refresh()
        assert subscriber.stuck.tolist() == [True, False]
        assert table.reports[0] == report
    again = Shm().publisher(exchange.address, 0)
    again.publish()
    subscriber.refresh()
    assert subscriber.stuck.tolist() == [False, False]
    assert table.reports["version"].tolist() == [1, 0]
    assert table.reports["running"].tolist() == [0, 0]
    again.close()


def test_an_epoch_is_greater_than_the_last_though_the_clock_was_set_back(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = LoadTable(2)
    subscriber = Shm().subscriber(exchange.address, table)
    epochs = []
    for clock_ns in (2_000, 1_000):
        monkeypatch.setattr(time, "time_ns", lambda clock_ns=clock_ns: clock_ns)
        publisher = Shm().publisher(exchange.address, 0)
        publisher.publish()
        publisher.close()
        subscriber.refresh()
        epochs.append(table.reports["epoch"][0].item())
    assert epochs == [2_000, 2_001]


def test_a_rank_may_overwrite_its_whole_report(exchange: Exchange) -> None:
    table = LoadTable(2)
    subscriber = Shm().subscriber(exchange.address, table)
    publisher = Shm().publisher(exchange.address, 0)
    for _ in range(2):
        publisher.report[:] = np.zeros(1, publisher.report.dtype)
        publisher.publish()
    subscriber.refresh()
    assert table.reports["version"][0] == 2
    assert table.reports["epoch"][0] > 0
    publisher.close()


def test_a_closed_publisher_publishes_no_more(exchange: Exchange) -> None:
    publisher = Shm().publisher(exchange.address, 0)
    publisher.close()
    publisher.close()
    with pytest.raises(ValueError, match="is closed"):
        publisher.publish()


def test_the_ledger_covers_what_a_rank_has_received(exchange: Exchange) -> None:
    table = LoadTable(2)
    subscriber = Shm().subscriber(exchange.address, table)
    publisher = Shm().publisher(exchange.address, 1)
    ledger = Ledger(2, epoch=77)
    for k in range(3):
        ledger.charge(Request(k, 0.0, 10), rank=1, prefill_s=0.1)
    publisher.received_epoch[0], publisher.received_sequence[0] = 77, 2
    publisher.publish()
    subscriber.refresh()
    ledger.observe(table)
    assert ledger.in_flight.requests.tolist() == [0, 1]
    publisher.close()


def test_other_memory_is_not_taken_for_reports() -> None:
    other = Segment.create("test", 1000)
    with pytest.raises(SharedMemoryError, match="holds no load reports of this version"):
        Shm().publisher(other.name, 0)
    other.close()


def test_ends_work_on_after_the_exchange_is_gone(exchange: Exchange) -> None:
    table = LoadTable(2)
    subscriber = Shm().subscriber(exchange.address, table)
    publisher = Shm().publisher(exchange.address, 0)
    exchange.close()
    publisher.publish()
    subscriber.refresh()
    assert table.reports["version"].tolist() == [1, 0]
    publisher.close()
    subscriber.close()


def test_the_example_on_the_page_runs() -> None:
    (example,) = blocks("docs/transports.md", "python")
    exec(example, {})


def test_a_killed_rank_is_not_chosen_though_it_said_nothing(
    exchange: Exchange, start: Callable[[str], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("places", "shm.transport"):
        monkeypatch.setattr(f"dpbal.transports.{module}.LOOK_NS", 0)
    code = f"from dpbal.transports import Shm; p = Shm().publisher({exchange.address!r}, 1)"
    killed = start(code)
    other = Shm().publisher(exchange.address, 0)
    table = LoadTable(2)
    subscriber = Shm().subscriber(exchange.address, table)
    other.publish()
    killed.do("p.publish()")
    subscriber.refresh()
    assert table.selectable.tolist() == [True, True]
    killed.end(signal.SIGKILL)
    subscriber.refresh()
    assert table.selectable.tolist() == [True, False]
    again = Shm().publisher(exchange.address, 1)
    again.publish()
    subscriber.refresh()
    assert table.selectable.tolist() == [True, True]
    for end in (again, other, subscriber):
        end.close()
