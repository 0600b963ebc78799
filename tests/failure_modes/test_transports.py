"""What only happens on the way from ranks to dispatchers, on every transport between processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dpbal.core import LoadTable, Request
from dpbal.ledger import Ledger
from tests.failure_modes import naive_transports as naive
from tests.failure_modes.exchange import OURS, Ends, Subject, case_of, ends
from tests.failure_modes.finding import finds
from tests.transports.processes import ROOT, Process

REPORTS = 2000


@finds(OURS, {naive.OneAfterTheOther: "sees report 1 of 2000"})
def test_f03_a_look_sees_the_newest_report_however_many_came(subject: Subject) -> None:
    with ends(subject) as group:
        subscriber = group.subscribe()
        group.publish(0, times=REPORTS)
        versions = group.table.reports["version"]
        is_newest = group.sees(subscriber, lambda: versions.item() == REPORTS)
        assert is_newest, f"a dispatcher sees report {versions.item()} of {REPORTS}"


@finds(OURS, {naive.GatherOfIds: "the rank died of 511 "})
def test_f04_any_number_of_requests_may_come_between_two_reports(subject: Subject) -> None:
    with ends(subject) as group:
        subscriber, ledger, number = group.subscribe(), Ledger(1), 0
        own = group.publishers[0]
        for requests in (510, 511, 512, 5000):
            for _ in range(requests):
                number += 1
                ledger.charge(Request(number, 0.0, 10), 0, 0.1)
            own.received_epoch[0], own.received_sequence[0] = ledger.epoch, number
            try:
                group.publish(0)
            except ValueError as error:
                raise AssertionError(f"the rank died of {requests} requests: {error}") from error
            received = group.table.received_sequence
            assert group.sees(subscriber, lambda: received.item() == number)  # noqa: B023
            ledger.observe(group.table)
            assert ledger.in_flight.requests.tolist() == [0]


@finds(OURS, {naive.EveryFortySteps: "looks as if it had 5"})
def test_f10_the_last_word_before_all_ranks_rest_arrives(subject: Subject) -> None:
    with ends(subject) as group:
        subscriber, own = group.subscribe(), group.publishers[0]
        running = group.table.reports["running"]
        group.publish(0, running=5)
        assert group.sees(subscriber, lambda: running.item() == 5)
        own.report["running"] = 0
        own.publish()
        own.step(41)
        own.rest()
        is_idle = group.sees(subscriber, lambda: running.item() == 0)
        assert is_idle, f"a rank at rest looks as if it had {running.item()} requests"


@finds(OURS, {naive.SaidOnce: "no report of a rank that gave one"})
def test_f12_who_comes_late_sees_what_was_said_before(subject: Subject) -> None:
    with ends(subject) as group:
        group.publish(0, running=7)
        subscriber = group.subscribe()
        sees = group.sees(subscriber, lambda: group.table.reports["running"].item() == 7)
        assert sees, "there is no report of a rank that gave one"


@finds(OURS, {naive.FixedName: "a second server cannot start"})
def test_f17_two_servers_of_a_host_do_not_meet(subject: Subject) -> None:
    with ends(subject) as one:
        try:
            other = Ends(case_of(subject))
        except FileExistsError as error:
            raise AssertionError(f"a second server cannot start: {error}") from error
        one.publish(0, running=1)
        other.publish(0, running=2)
        for group, running in ((one, 1), (other, 2)):
            reports = group.table.reports["running"]
            assert group.sees(group.subscribe(), lambda: reports.item() == running)  # noqa: B023
        other.close()


@finds(OURS, {naive.ReaderBinds: r"of 2 readers see"})
def test_f18_every_front_end_process_sees_every_report(subject: Subject) -> None:
    with ends(subject, dispatchers=2) as group:
        tables = [LoadTable(1, 2) for _ in range(2)]
        subscribers = [group.subscribe(table) for table in tables]
        for running in (1, 2):
            group.publish(0, running=running)
            seeing = [
                group.sees(subscriber, lambda: table.reports["running"].item() == running)  # noqa: B023
                for table, subscriber in zip(tables, subscribers, strict=True)
            ]
            assert all(seeing), f"{sum(seeing)} of 2 readers see report {running}"


@finds(OURS, {naive.Unlocked: "of rank . was lost"})
def test_f19_ranks_that_publish_at_once_do_not_undo_each_other(subject: Subject) -> None:
    with ends(subject, ranks=2) as group:
        subscriber, versions = group.subscribe(), group.table.reports["version"]
        group.publish(0, 1, times=50)
        group.sees(subscriber, lambda: versions.tolist() == [50, 50])
        for rank in range(2):
            assert versions.item(rank) == 50, f"the last report of rank {rank} was lost"


OF_ANOTHER_VERSION = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
import dpbal.core as core
core.REPORT = np.dtype([("priority", "<i8"), *core.REPORT.descr])
from dpbal.errors import DpbalError
"""

PUBLISHES = """
try:
    p = t.publisher({address!r}, 0)
except DpbalError as error:
    said = str(error)
else:
    said = None
    p.report["running"] = 7
    p.report["waiting"] = 3
    p.publish()
    p.step(40)
"""


@pytest.fixture(scope="module")
def newer() -> Iterator[Process]:
    """A process in which reports have one more field."""
    process = Process(OF_ANOTHER_VERSION, is_new=True)
    yield process
    process.end()


@finds(OURS, {naive.Unversioned: "takes 7 that run for"})
def test_f29_a_rank_of_another_version_is_refused_or_understood(
    subject: Subject, newer: Process, caplog: pytest.LogCaptureFixture
) -> None:
    with ends(subject) as group:
        subscriber = group.subscribe()
        group.publishers[0].close()
        newer.do(case_of(subject).code)
        newer.do(PUBLISHES.format(address=group.address))
        refusal = newer.do("said")
        running = group.table.reports["running"]
        if refusal is None:  # or the reader may refuse it
            group.sees(subscriber, lambda: running.item() != 0 or bool(caplog.messages))
            refusal = next(iter(caplog.messages), None)
        newer.do("p = None")
        if refusal is None:
            assert running.item() == 7, f"a dispatcher takes 7 that run for {running.item()}"
        else:
            assert running.item() == 0
            assert "version" in refusal
            assert "\n" not in refusal
