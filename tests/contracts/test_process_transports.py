"""What every transport between processes must do, with the ranks in processes of their own."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest

from dpbal.core import LoadTable
from dpbal.errors import DpbalError
from dpbal.transports import TRANSPORTS, Exchange, ProcessTransport, Subscriber
from tests.transports.processes import Process

NAMES = [name for name in sorted(TRANSPORTS) if issubclass(TRANSPORTS[name], ProcessTransport)]


class Group:
    """Some ranks, each in a process, and the first of their two dispatchers in this one."""

    def __init__(self, name: str, ranks: int) -> None:
        transport = TRANSPORTS.build(name, {})
        assert isinstance(transport, ProcessTransport)
        self.transport = transport
        self.exchange: Exchange = transport.create(ranks, 2)
        self.name = name
        self.processes = [self.process() for _ in range(ranks)]
        for rank, process in enumerate(self.processes):
            self.join(rank, process)
        self.table = LoadTable(ranks, 2)
        self.subscriber: Subscriber = transport.subscriber(self.exchange.address, self.table)

    def process(self) -> Process:
        build = f"t = TRANSPORTS.build({self.name!r}, {{}})"
        return Process(f"from dpbal.transports import TRANSPORTS; {build}")

    def join(self, rank: int, process: Process) -> None:
        process.do(f"p = t.publisher({self.exchange.address!r}, {rank})")

    def publish(self, rank: int, running: int) -> None:
        self.processes[rank].do(f"p.report['running'] = {running}; p.publish()")

    def close(self) -> None:
        for process in self.processes:
            if not process.has_ended:
                process.end(signal.SIGKILL)
        self.exchange.close()


@pytest.fixture(params=NAMES)
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    made = Group(request.param, ranks=2)
    yield made
    made.close()


def test_one_look_takes_in_what_all_ranks_have_published(group: Group) -> None:
    assert group.table.reports["version"].tolist() == [0, 0]
    assert np.isinf(group.subscriber.ages_s()).all()
    for _ in range(3):
        group.publish(0, running=4)
    group.publish(1, running=5)
    group.subscriber.refresh()
    reports = group.table.reports
    assert reports["version"].tolist() == [3, 1]
    assert reports["running"].tolist() == [4, 5]
    assert (reports["epoch"] > 0).all()
    ages_s = group.subscriber.ages_s()
    assert (ages_s > 0).all()
    assert ages_s[0] > ages_s[1]


def test_the_age_of_a_report_grows_until_the_next(group: Group) -> None:
    group.publish(0, running=1)
    group.subscriber.refresh()
    first = group.subscriber.ages_s()[0]
    group.subscriber.refresh()
    assert group.subscriber.ages_s()[0] > first


def test_what_ranks_have_received_of_each_dispatcher_arrives_with_it(group: Group) -> None:
    group.processes[1].do("p.received_epoch[:] = [11, 12]; p.received_sequence[:] = [7, 9]")
    group.subscriber.refresh()
    assert not group.table.received_sequence.any()
    group.publish(1, running=1)
    group.subscriber.refresh()
    assert group.table.received_epoch.tolist() == [[0, 0], [11, 12]]
    assert group.table.received_sequence.tolist() == [[0, 0], [7, 9]]


def test_readers_see_by_the_generation_whether_anything_is_new(group: Group) -> None:
    group.publish(0, running=1)
    group.subscriber.refresh()
    before = group.table.generation.item()
    group.subscriber.refresh()
    assert group.table.generation.item() == before
    group.publish(0, running=1)
    group.subscriber.refresh()
    assert group.table.generation.item() > before


def test_a_rank_without_a_report_is_not_chosen_while_another_has_one(group: Group) -> None:
    assert group.table.selectable.tolist() == [True, True]
    group.publish(1, running=1)
    group.subscriber.refresh()
    assert group.table.selectable.tolist() == [False, True]
    group.publish(0, running=9)
    group.subscriber.refresh()
    assert group.table.selectable.tolist() == [True, True]


@pytest.mark.parametrize("ending", ["p.close()", "exit()", "raise SystemError('on purpose')"])
def test_a_rank_that_has_closed_or_ended_is_not_chosen(group: Group, ending: str) -> None:
    for rank in range(2):
        group.publish(rank, running=1)
    group.processes[1].tell(ending)
    group.processes[1].end()
    group.subscriber.refresh()
    assert group.table.selectable.tolist() == [True, False]


@pytest.mark.parametrize("ending", [signal.SIGKILL, None])
def test_a_rank_that_starts_again_has_a_greater_epoch_and_is_chosen_when_it_reports(
    group: Group, ending: signal.Signals | None
) -> None:
    for rank in range(2):
        group.publish(rank, running=3)
    group.subscriber.refresh()
    epoch, sequence = group.table.reports["epoch"][1], group.table.received_sequence
    group.processes[1].end(ending)
    group.processes[1] = group.process()
    group.join(1, group.processes[1])
    group.subscriber.refresh()
    assert group.table.selectable.tolist() == [True, False]
    group.publish(1, running=1)
    group.subscriber.refresh()
    report = group.table.reports[1]
    assert report["epoch"] > epoch
    assert (report["version"], report["running"]) == (1, 1)
    assert not sequence[1].any()
    assert group.table.selectable.tolist() == [True, True]


def test_a_rank_that_somebody_took_out_of_the_choice_stays_out(group: Group) -> None:
    for rank in range(2):
        group.publish(rank, running=1)
    group.subscriber.refresh()
    group.table.set_available(0, False)
    group.publish(0, running=2)
    group.publish(1, running=2)
    group.subscriber.refresh()
    assert group.table.selectable.tolist() == [False, True]


def test_a_rank_has_one_publisher_at_a_time(group: Group) -> None:
    with pytest.raises(DpbalError, match=r"rank 0 .* has a publisher already"):
        group.transport.publisher(group.exchange.address, 0)
    group.processes[0].do("p.close()")
    group.transport.publisher(group.exchange.address, 0).close()


def test_two_groups_of_a_host_do_not_meet(group: Group) -> None:
    other = group.transport.create(2, 2)
    assert other.address != group.exchange.address
    table = LoadTable(2, 2)
    subscriber = group.transport.subscriber(other.address, table)
    group.publish(0, running=1)
    subscriber.refresh()
    assert not table.reports["version"].any()
    other.close()


def test_what_does_not_fit_is_one_clear_line(group: Group) -> None:
    address = group.exchange.address
    with pytest.raises(DpbalError, match=r"no rank 2 .* 0 to 1"):
        group.transport.publisher(address, 2)
    with pytest.raises(DpbalError, match=r"3 ranks and 1 dispatchers .* 2 and 2"):
        group.transport.subscriber(address, LoadTable(3))
    with pytest.raises(DpbalError, match="at least 1 rank and 1 dispatcher, got 0 and 1"):
        group.transport.create(0, 1)
    group.exchange.close()
    group.exchange.close()
    with pytest.raises(DpbalError, match="exists as long as"):
        group.transport.publisher(address, 0)
