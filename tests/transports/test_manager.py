from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Client
from pathlib import Path

import psutil
import pytest

from dpbal.core import LoadTable
from dpbal.sharedmem import Segment, SharedMemoryError, sweep
from dpbal.transports import Exchange, Manager, Subscriber
from tests.transports.processes import Process

Start = Callable[..., Process]

OWN = "import os, sys, signal; from dpbal.transports import Manager; x = Manager().create(2, 1)"


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    made = Manager().create(2, 1)
    yield made
    made.close()


@pytest.fixture
def server(exchange: Exchange) -> Iterator[psutil.Process]:
    """The manager's process."""
    (found,) = [c for c in psutil.Process().children() if "manager.server" in c.cmdline()[-1]]
    yield found
    with suppress(psutil.NoSuchProcess):
        found.resume()


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def sees(
    table: LoadTable, subscriber: Subscriber, *values: int, field: str = "running"
) -> Callable[[], bool]:
    def look() -> bool:
        subscriber.refresh()
        return bool(table.reports[field].tolist() == list(values))

    return look


WAYS_OUT = {
    "close": "x.close()",
    "garbage": "del x",
    "the end of the program": "exit()",
    "an exception": "raise SystemError('on purpose')",
    "Ctrl-C": "os.kill(os.getpid(), signal.SIGINT)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_end_of_its_owner_leaves_its_process_or_its_socket(start: Start, way: str) -> None:
    owner = start(OWN)
    address = owner.do("x.address")
    assert len(owner.left_running()) == 1
    assert address in Path("/proc/net/unix").read_text()
    owner.tell(WAYS_OUT[way])
    until(lambda: owner.left_running() == [])
    until(lambda: address not in Path("/proc/net/unix").read_text())
    owner.end()
    sweep()


def test_reports_that_ranks_publish_at_once_do_not_undo_each_other(
    exchange: Exchange, start: Start
) -> None:
    code = "from dpbal.transports import Manager; p = Manager().publisher({!r}, {})"
    ranks = [start(code.format(exchange.address, rank)) for rank in range(2)]
    for rank in ranks:
        rank.tell("for k in range(300):\n    p.report['running'] = k; p.publish()")
    table = LoadTable(2)
    subscriber = Manager().subscriber(exchange.address, table)
    versions = [0, 0]
    while min(versions) < 300:
        subscriber.refresh()
        before, versions = versions, table.reports["version"].tolist()
        assert all(new >= old for old, new in zip(before, versions, strict=True))
    assert table.reports["running"].tolist() == [299, 299]
    subscriber.close()


def test_a_stopped_process_is_waited_for_once_and_what_was_kept_back_arrives_then(
    exchange: Exchange, server: psutil.Process, caplog: pytest.LogCaptureFixture
) -> None:
    table = LoadTable(2)
    subscriber = Manager().subscriber(exchange.address, table)
    publisher = Manager().publisher(exchange.address, 1)
    publisher.report["running"] = 1
    publisher.publish()
    until(sees(table, subscriber, 0, 1))
    server.suspend()
    caplog.clear()
    began_s = time.monotonic()
    for running in range(1, 101):
        publisher.report["running"] = running
        publisher.publish()
        subscriber.refresh()
    assert time.monotonic() - began_s < 60  # and not a second 200 times
    assert table.reports["version"].tolist() == [0, 1]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "within 1 s; until it is, what rank 1 reports is kept back" in caplog.text
    server.resume()
    until(sees(table, subscriber, 0, 100))
    until(lambda: caplog.text.count("answers again") >= 2)
    publisher.report["running"] = 7
    publisher.publish()
    until(sees(table, subscriber, 0, 7))
    publisher.close()
    subscriber.close()


def test_a_dispatcher_that_looks_no_more_after_a_stop_of_the_process_keeps_nothing_from_others(
    exchange: Exchange, server: psutil.Process
) -> None:
    table = LoadTable(2)
    idle = Manager().subscriber(exchange.address, LoadTable(2))
    busy = Manager().subscriber(exchange.address, table)
    publisher = Manager().publisher(exchange.address, 0)
    publisher.report["running"] = 1
    publisher.publish()
    until(sees(table, busy, 1, 0))
    server.suspend()
    idle.refresh()  # it asks for the lock, and gets it when nobody waits for it
    server.resume()
    for running in (2, 3):
        publisher.report["running"] = running
        publisher.publish()
        until(sees(table, busy, running, 0))
    for end in (publisher, idle, busy):
        end.close()


def test_one_that_is_stopped_with_the_lock_keeps_the_last_word_of_others_back_not_for_ever(
    exchange: Exchange, start: Start
) -> None:
    table = LoadTable(2)
    subscriber = Manager().subscriber(exchange.address, table)
    publisher = Manager().publisher(exchange.address, 0)
    other = start(
        f"from dpbal.transports import Manager; p = Manager().publisher("
        f"{exchange.address!r}, 1); import os, signal"
    )
    other.tell(
        "with p._link.calls():\n"
        "    p._link.lock(); os.kill(os.getpid(), signal.SIGSTOP); p._link.unlock()"
    )
    other.until_stopped()
    for running in (1, 2):
        publisher.report["running"] = running
        publisher.publish()
    subscriber.refresh()
    assert not table.reports["version"].any()
    other.send(signal.SIGCONT)
    until(sees(table, subscriber, 2, 0))
    publisher.close()
    subscriber.close()


def test_without_the_process_all_go_on_and_nobody_joins(
    exchange: Exchange, server: psutil.Process, caplog: pytest.LogCaptureFixture
) -> None:
    table = LoadTable(2)
    subscriber = Manager().subscriber(exchange.address, table)
    publisher = Manager().publisher(exchange.address, 0)
    vectors = Manager().vectors(exchange.address, 0)
    publisher.report["running"] = 3
    publisher.publish()
    until(sees(table, subscriber, 3, 0))
    server.kill()
    server.wait()
    for _ in range(3):
        publisher.publish()
        subscriber.refresh()
        vectors.publish(0, 0)
    assert table.reports["running"].tolist() == [3, 0]
    assert sum("has ended" in text for text in caplog.messages) == 3
    with pytest.raises(SharedMemoryError, match="exists as long as the process that made it"):
        Manager().publisher(exchange.address, 1)
    with pytest.raises(SharedMemoryError, match="exists as long as"):
        Manager().subscriber(exchange.address, LoadTable(2))
    for end in (publisher, subscriber, vectors):
        end.close()


def test_a_killed_rank_is_not_chosen_though_the_process_is_stopped(
    exchange: Exchange, server: psutil.Process, start: Start
) -> None:
    code = "from dpbal.transports import Manager; p = Manager().publisher({!r}, {})"
    ranks = [start(code.format(exchange.address, rank)) for rank in range(2)]
    for rank in ranks:
        rank.do("p.publish()")
    table = LoadTable(2)
    subscriber = Manager().subscriber(exchange.address, table)
    server.suspend()
    ranks[1].end(signal.SIGKILL)

    def is_out() -> bool:
        subscriber.refresh()
        return table.selectable.tolist() == [True, False]

    until(is_out)
    subscriber.close()


def test_who_does_not_know_the_key_gets_nothing(exchange: Exchange) -> None:
    with pytest.raises(multiprocessing.AuthenticationError):
        Client(f"\0{exchange.address}", authkey=b"a guess")
    listed = Path("/proc/net/unix").read_text()
    assert f"@{exchange.address}" in listed  # it was the right place


def test_an_epoch_is_greater_than_the_last_though_the_clock_was_set_back(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = LoadTable(2)
    subscriber = Manager().subscriber(exchange.address, table)
    for clock_ns, epoch in ((2_000, 2_000), (1_000, 2_001)):
        monkeypatch.setattr(time, "time_ns", lambda clock_ns=clock_ns: clock_ns)
        publisher = Manager().publisher(exchange.address, 0)
        publisher.publish()
        publisher.close()
        until(sees(table, subscriber, epoch, 0, field="epoch"))
    subscriber.close()


def test_a_closed_publisher_publishes_no_more(exchange: Exchange) -> None:
    publisher = Manager().publisher(exchange.address, 0)
    publisher.close()
    publisher.close()
    with pytest.raises(ValueError, match="is closed"):
        publisher.publish()


def test_other_memory_is_not_taken_for_a_group() -> None:
    other = Segment.create("test", 1000)
    with pytest.raises(SharedMemoryError, match="is no manager's of this version"):
        Manager().publisher(other.name, 0)
    other.close()


def test_a_process_that_cannot_start_is_one_clear_line_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(SharedMemoryError, match=r"did not start \(exit code 1\)"):
        Manager().create(1, 1)
    assert not any(f"-{os.getpid()}-" in name for name in os.listdir("/dev/shm"))
