"""What every transport between processes must do, with the ranks in processes of their own."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from dpbal.core import LoadTable
from dpbal.errors import DpbalError
from dpbal.transports import TRANSPORTS, Exchange, ProcessTransport
from tests.transports.conftest import left_by
from tests.transports.groups import CASES, PARAMS, Case, Group


@pytest.fixture(params=PARAMS)
def case(request: pytest.FixtureRequest) -> Case:
    made: Case = request.param
    return made


@pytest.fixture
def group(case: Case) -> Iterator[Group]:
    with closing(Group(case)) as made:
        yield made


def test_every_transport_between_processes_is_here() -> None:
    names = {name for name in TRANSPORTS if issubclass(TRANSPORTS[name], ProcessTransport)}
    assert {case.transport for case in CASES} == names


def test_one_look_takes_in_what_all_ranks_have_published(group: Group) -> None:
    assert group.table.reports["version"].tolist() == [0, 0]
    assert np.isinf(group.ages_s).all()
    for _ in range(3):
        group.publish(0, running=4)
    group.publish(1, running=5)
    group.see(group.has("version", 3, 1))
    reports = group.table.reports
    assert reports["running"].tolist() == [4, 5]
    assert (reports["epoch"] > 0).all()
    ages_s = group.ages_s
    assert ages_s[0] > ages_s[1] > 0


def test_the_age_of_a_report_grows_until_the_next(group: Group) -> None:
    group.publish(0)
    group.see(group.has("version", 1, 0))
    first = group.ages_s[0]
    group.refresh()
    assert group.ages_s[0] > first
    before_s = time.monotonic()
    group.publish(0)
    group.see(group.has("version", 2, 0))
    age_s = group.ages_s[0]
    assert 0 < age_s <= time.monotonic() - before_s


def test_what_ranks_have_received_of_each_dispatcher_arrives_with_it(group: Group) -> None:
    group.processes[1].do("p.received_epoch[:] = [11, 12]; p.received_sequence[:] = [7, 9]")
    group.refresh()
    assert not group.table.received_sequence.any()
    group.publish(1)
    group.see(group.has("version", 0, 1))
    assert group.table.received_epoch.tolist() == [[0, 0], [11, 12]]
    assert group.table.received_sequence.tolist() == [[0, 0], [7, 9]]


def test_readers_see_by_the_generation_whether_anything_is_new(group: Group) -> None:
    group.publish(0)
    group.see(group.has("version", 1, 0))
    before = group.table.generation.item()
    group.refresh()
    assert group.table.generation.item() == before
    group.publish(0)
    group.see(group.has("version", 2, 0))
    assert group.table.generation.item() > before


def test_a_rank_without_a_report_is_not_chosen_while_another_has_one(group: Group) -> None:
    assert group.table.selectable.tolist() == [True, True]
    group.publish(1)
    group.see(group.chooses(False, True))
    group.publish(0, running=9)
    group.see(group.chooses(True, True))


@pytest.mark.parametrize("ending", ["p.close()", "exit()", "raise SystemError('on purpose')"])
def test_a_rank_that_has_closed_or_ended_is_not_chosen(group: Group, ending: str) -> None:
    for rank in range(2):
        group.publish(rank)
    group.see(group.chooses(True, True))
    group.processes[1].tell(ending)
    group.processes[1].end()
    group.see(group.chooses(True, False))


@pytest.mark.parametrize("ending", [signal.SIGKILL, None])
def test_a_rank_that_starts_again_has_a_greater_epoch_and_is_chosen_when_it_reports(
    group: Group, ending: signal.Signals | None
) -> None:
    for rank in range(2):
        group.publish(rank, running=3)
    group.see(group.has("version", 1, 1))
    if not group.case.outlives_rank:
        with pytest.raises(AssertionError, match=r"rank 1 .* too late"):
            group.restart(1, ending)
        return
    epoch = group.table.reports["epoch"][1].item()
    group.restart(1, ending)
    group.see(group.chooses(True, False))
    group.publish(1)
    group.see(group.chooses(True, True))
    report = group.table.reports[1]
    assert report["epoch"] > epoch
    assert (report["version"], report["running"]) == (1, 1)
    assert not group.table.received_sequence[1].any()


def test_a_rank_that_somebody_took_out_of_the_choice_stays_out(group: Group) -> None:
    for rank in range(2):
        group.publish(rank)
    group.see(group.has("version", 1, 1))
    group.table.set_available(0, False)
    group.publish(0)
    group.publish(1)
    group.see(group.has("version", 2, 2))
    assert group.table.selectable.tolist() == [False, True]


def test_a_rank_has_one_publisher_at_a_time(group: Group) -> None:
    with pytest.raises(DpbalError, match=r"rank 0 .* has a publisher already"):
        group.transport.publisher(group.address, 0)
    group.processes[0].do("p.close()")
    group.transport.publisher(group.address, 0).close()


def test_two_groups_of_a_host_do_not_meet(group: Group, case: Case) -> None:
    with closing(Group(case)) as other:
        assert other.address != group.address
        for running in (1, 2):
            group.publish(0, running)
            other.publish(1, running + 10)
        group.see(group.has("running", 2, 0))
        other.see(other.has("running", 0, 12))
        group.refresh()
        assert group.table.reports["version"].tolist() == [2, 0]
        assert other.table.reports["version"].tolist() == [0, 2]
    group.publish(0, 3)
    group.see(group.has("running", 3, 0))


def test_an_exchange_that_many_threads_close_at_once_is_gone(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="close-") as folder:  # pytest's is long for sockets
        monkeypatch.setattr(tempfile, "tempdir", folder)
        for _ in range(5):
            exchange = case.build().create(2, 1)
            barrier = threading.Barrier(8)

            def close(exchange: Exchange = exchange, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                exchange.close()

            with ThreadPoolExecutor(8) as threads:
                closed = [threads.submit(close) for _ in range(8)]
            for one in closed:
                one.result()
            with pytest.raises(DpbalError, match="exists as long as"):
                case.build().publisher(exchange.address, 0)
            assert left_by(os.getpid()) == []
            assert list(Path(folder).iterdir()) == []


def test_what_does_not_fit_is_one_clear_line(group: Group) -> None:
    address = group.address
    with pytest.raises(DpbalError, match=r"no rank 2 .* 0 to 1"):
        group.transport.publisher(address, 2)
    with pytest.raises(DpbalError, match=r"3 ranks and 1 dispatchers .* 2 and 2"):
        group.transport.subscriber(address, LoadTable(3))
    with pytest.raises(DpbalError, match="at least 1 rank and 1 dispatcher, got 0 and 1"):
        group.transport.create(0, 1)
    with pytest.raises(DpbalError):
        group.transport.publisher("nowhere", 0)
    assert group.exchange is not None
    group.exchange.close()
    group.exchange.close()
    with pytest.raises(DpbalError, match="exists as long as"):
        group.transport.publisher(address, 0)
