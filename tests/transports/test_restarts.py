"""What ledgers make of ranks and dispatchers that are started again."""

from __future__ import annotations

import signal

from dpbal.core import Request
from dpbal.ledger import Ledger
from tests.transports.conftest import RANKS
from tests.transports.groups import Group

VICTIM, OTHERS = 1, (0, 2)


def test_a_ledger_forgets_what_a_killed_rank_was_sent(group: Group) -> None:
    ledger = Ledger(RANKS, dispatcher=1, epoch=5)
    for k in range(3):
        ledger.charge(Request(k, 0.0, 10), VICTIM, prefill_s=0.1)
    ledger.charge(Request(3, 0.0, 10), 0, prefill_s=0.1)
    group.refresh()
    ledger.observe(group.table)
    assert ledger.in_flight.requests.tolist() == [1, 3, 0]
    before = group.table.reports["epoch"].copy()
    group.processes[VICTIM].end(signal.SIGKILL)
    group.go_on(*OTHERS)
    group.until(group.chooses(True, False, True))
    ledger.observe(group.table)
    assert ledger.in_flight.requests.tolist() == [1, 3, 0]  # it may have them
    if not group.case.outlives_rank:
        for k in range(3):
            ledger.release(k)  # they end all the same, and whoever sent them says so
        assert ledger.in_flight.requests.tolist() == [1, 0, 0]
        return
    group.restart(VICTIM)
    group.publish(VICTIM)
    group.until(group.chooses(True, True, True))
    assert ledger.observe(group.table) == [VICTIM]
    assert (group.table.reports["epoch"] > before).tolist() == [False, True, False]
    assert ledger.in_flight.requests.tolist() == [1, 0, 0]
    assert ledger.in_flight.prefill_s.tolist() == [0.1, 0.0, 0.0]
    assert ledger.outstanding.tolist() == [1, 0, 0]
    for k in range(3):
        ledger.release(k)
    assert (ledger.unknown_releases, ledger.outstanding.tolist()) == (3, [1, 0, 0])


def test_what_a_former_dispatcher_sent_covers_nothing_of_the_next(group: Group) -> None:
    rank = group.processes[0]
    former = Ledger(RANKS, dispatcher=1, epoch=5)
    for k in range(3):
        former.charge(Request(k, 0.0, 10), 0, prefill_s=0.1)
        rank.do(f"hear(1, 5, {former.sequence})")
    group.publish(0, running=3)
    group.see(group.has("running", 3, 2, 3))
    former.observe(group.table)
    assert former.in_flight.requests[0] == 0
    again = Ledger(RANKS, dispatcher=1, epoch=6)
    for k in range(2):
        again.charge(Request(k, 0.0, 10), 0, prefill_s=0.1)
    again.observe(group.table)
    group.publish(0, running=4)
    group.see(group.has("running", 4, 2, 3))
    again.observe(group.table)
    assert again.in_flight.requests[0] == 2
    rank.do("hear(1, 6, 1); hear(1, 5, 4)")  # the former's last came late
    group.publish(0, running=5)
    group.see(group.has("running", 5, 2, 3))
    assert group.table.received_epoch[0].tolist() == [0, 6]
    assert group.table.received_sequence[0].tolist() == [0, 1]
    again.observe(group.table)
    assert again.in_flight.requests[0] == 1
