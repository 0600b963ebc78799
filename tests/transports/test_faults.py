"""What a group does when one of its processes is killed or stopped, or when there is a rush.

Lost, repeated and late messages are a matter of ``zmq`` alone, and in its tests.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import numpy as np
import pytest

from dpbal.balancers import BALANCERS
from dpbal.core import Request
from dpbal.dispatcher import Dispatcher
from dpbal.ledger import Ledger
from dpbal.signals import SIGNALS
from dpbal.step_time import StepTime
from tests.transports.conftest import RANKS, MakeGroup, left_by
from tests.transports.groups import CASES, FEW, ITERATIONS, LOOK_S, PARAMS, PATIENCE_S, Case, Group
from tests.transports.processes import Process

VICTIM, OTHERS = 1, (0, 2)

HOWS = [signal.SIGKILL, signal.SIGSTOP]

IN_MID_WRITE = {
    "shm": """
import os
from dpbal.transports.shm import seqlock
from dpbal.transports.records import EPOCH
sequence = seqlock.begin(p._slot)
whole = p._segment.array("int64", (EPOCH + 2,), p._slot - p._segment.address)
before = whole.copy()
whole[1:] = 12345
os.kill(os.getpid(), {how})
whole[1:] = before[1:]
seqlock.end(p._slot, sequence)
""",
    "manager": """
import os
with p._link.calls():
    p._link.lock()
    os.kill(os.getpid(), {how})
    p._link.unlock()
""",
}
"""What a rank does to be hit in the midst of a write. There is none where ranks send one message,
which was sent or was not; where they meet, another test has the midst of a meeting."""


IN_MID_READ = {
    "manager": """
import os
with s._link.calls():
    s._link.lock()
    os.kill(os.getpid(), {how})
    s._link.unlock()
""",
}
"""What a dispatcher does to be hit in the midst of a read, where others would notice."""


def cases(fits: Callable[[Case], bool]) -> pytest.MarkDecorator:
    """A test of these only."""
    params = [param for case, param in zip(CASES, PARAMS, strict=True) if fits(case)]
    return pytest.mark.parametrize("case", params, indirect=True, ids=lambda case: case.name)


READS = """
from dpbal.core import LoadTable
table = LoadTable({ranks}, 2)
s = t.subscriber({address!r}, table)
"""


def outlives(case: Case, how: signal.Signals) -> bool:
    """Whether reports arrive while a rank is gone or stopped."""
    return case.outlives_rank if how is signal.SIGKILL else case.outlives_stopped


def hit(group: Group, rank: int, how: signal.Signals) -> None:
    """Kill or stop a rank."""
    if how is signal.SIGSTOP:
        group.stop(rank)
    else:
        assert group.processes[rank].end(how) == -how


def nobody_waits_for(group: Group, victim: Process, how: signal.Signals) -> None:
    """Ranks go on, and the dispatcher here, and one more, though another was hit."""
    group.go_on(0, 1, 2)
    if outlives(group.case, how):
        group.until(group.has_gone_on(0, 1, 2))
    victim.end(signal.SIGKILL)
    for rank in range(RANKS):
        group.until(partial(group.goes_through, rank))
    group.go_on(0, 1, 2, running=2000)
    group.until(group.has_gone_on(0, 1, 2, running=2000))
    late = group.other(READS.format(ranks=RANKS, address=group.address))
    late.do("import time\nwhile table.reports['running'].min() < 2000: s.refresh(); time.sleep(0)")
    assert late.do("table.reports['running'].tolist()") == [2099, 2099, 2099]


@pytest.mark.parametrize("how", HOWS)
def test_a_rank_that_is_killed_or_stopped_makes_no_other_wait(
    group: Group, how: signal.Signals
) -> None:
    if not group.transport.is_collective:
        group.processes[VICTIM].tell("while True: p.publish()")
        group.until(lambda: bool(group.table.reports["version"][VICTIM] > 100))
    hit(group, VICTIM, how)
    group.go_on(*OTHERS)
    if outlives(group.case, how):
        group.until(group.has_gone_on(*OTHERS))
    assert group.table.reports["running"][VICTIM] == VICTIM + 1
    if how is signal.SIGKILL or group.case.sees_stopped:
        group.until(group.chooses(True, False, True))
    else:
        group.refresh()
        assert group.table.selectable.all()
    if how is signal.SIGSTOP:
        version = group.table.reports["version"][VICTIM]
        group.wake(VICTIM)
        if group.case.outlives_rank:
            group.until(lambda: bool(group.table.reports["version"][VICTIM] > version))
            group.until(group.chooses(True, True, True))
            group.go_on(*OTHERS, running=2000)
            group.until(group.has_gone_on(*OTHERS, running=2000))


def test_a_rank_that_was_killed_before_any_report_is_not_chosen(case: Case) -> None:
    with closing(Group(case, RANKS)) as group:
        assert group.table.selectable.all()
        hit(group, VICTIM, signal.SIGKILL)
        group.go_on(*OTHERS)  # where ranks meet, there will be no report of anybody
        group.until(group.chooses(True, False, True))


@cases(lambda case: case.transport in IN_MID_WRITE)
@pytest.mark.parametrize("how", HOWS)
def test_a_rank_that_is_killed_or_stopped_in_mid_write_makes_no_other_wait(
    group: Group, how: signal.Signals
) -> None:
    code = IN_MID_WRITE[group.case.transport].format(how=int(how))
    group.processes[VICTIM].tell(code)
    if how is signal.SIGKILL:
        assert group.processes[VICTIM].end() == -how
    else:
        group.processes[VICTIM].until_stopped()
        group.stopped.add(VICTIM)
    group.go_on(*OTHERS)
    if outlives(group.case, how):
        group.until(group.has_gone_on(*OTHERS))
    assert group.table.reports["running"][VICTIM] == VICTIM + 1
    if how is signal.SIGKILL:
        group.until(group.chooses(True, False, True))
        group.restart(VICTIM)
    else:
        group.wake(VICTIM)
        group.processes[VICTIM].answer()
    for rank in OTHERS:
        group.until(partial(group.goes_through, rank))
    group.publish(VICTIM, running=55)
    group.until(lambda: bool(group.table.reports["running"][VICTIM] == 55))
    group.until(group.chooses(True, True, True))


@cases(lambda case: case.build().is_collective)
@pytest.mark.parametrize("how", HOWS)
def test_ranks_that_meet_wait_once_for_one_that_does_not_come(
    group: Group, how: signal.Signals
) -> None:
    versions = group.table.reports["version"].tolist()
    step = group.take_steps(1)
    for rank in OTHERS:
        group.processes[rank].tell(f"p.publish(); p.step({step})")
    hit(group, VICTIM, how)
    for rank in OTHERS:
        group.processes[rank].answer()
    group.go_on(*OTHERS)
    group.refresh()
    assert group.table.reports["version"].tolist() == versions  # what it had
    outputs = [group.processes[rank].output for rank in OTHERS]
    assert [output.count("gathers reports no more") for output in outputs] == [1, 1]
    assert any(f"rank {VICTIM} " in output for output in outputs), outputs


@pytest.mark.parametrize("how", HOWS)
def test_a_dispatcher_that_is_killed_or_stopped_makes_nobody_wait(
    group: Group, how: signal.Signals
) -> None:
    victim = group.other(READS.format(ranks=RANKS, address=group.address))
    victim.tell(
        "for _ in range(5): s.refresh()\nprint('has looked', flush=True)\nwhile True: s.refresh()"
    )
    deadline_s = time.monotonic() + PATIENCE_S
    while "has looked" not in victim.output:
        assert time.monotonic() < deadline_s
        time.sleep(LOOK_S)
    victim.send(how)
    nobody_waits_for(group, victim, how)


@cases(lambda case: case.transport in IN_MID_READ)
@pytest.mark.parametrize("how", HOWS)
def test_a_dispatcher_that_is_killed_or_stopped_in_mid_read_makes_nobody_wait(
    group: Group, how: signal.Signals
) -> None:
    victim = group.other(READS.format(ranks=RANKS, address=group.address))
    victim.tell(IN_MID_READ[group.case.transport].format(how=int(how)))
    if how is signal.SIGSTOP:
        victim.until_stopped()
    else:
        assert victim.end() == -how
    nobody_waits_for(group, victim, how)


@pytest.mark.parametrize("how", HOWS)
def test_when_the_owner_is_killed_or_stopped_ranks_and_dispatchers_go_on(
    make: MakeGroup, case: Case, how: signal.Signals
) -> None:
    owner = case.process()
    try:
        group = make(owner)
        owner.send(how)
        if how is signal.SIGKILL:
            owner.end()
        group.go_on(0, 1, 2)
        if case.outlives_owner or how is signal.SIGSTOP:
            group.until(group.has_gone_on(0, 1, 2))
        else:
            group.refresh()
            assert (group.table.reports["version"] > 0).all()
            for process in group.processes:
                assert process.output.count("has ended") == 1  # and no more is said of it
        for process in group.processes:
            assert process.end() == 0
        group.until(lambda: True)
    finally:
        owner.end(signal.SIGKILL)
    case.build().create(1, 1).close()
    assert left_by(owner.pid, *(process.pid for process in group.processes)) == []
    assert owner.left_running() == []


def test_a_thousand_dispatches_before_the_first_report_are_spread_and_then_covered(
    case: Case,
) -> None:
    with closing(Group(case, RANKS)) as group:
        ledger = Ledger(RANKS, epoch=5)
        balancer = BALANCERS.build("fewest_requests", {})
        balancer.start(RANKS, seed=0)
        signals = SIGNALS.build("sum", {"terms": {"requests": 1.0, "in_flight": 1.0}})
        dispatcher = Dispatcher(balancer, signals, ledger, group.table, StepTime())
        sent = np.zeros(RANKS, np.int64)
        for k in range(1000):
            group.refresh()
            placement = dispatcher.dispatch(Request(k, 0.0, 10), 0.0)
            sent[placement.rank] += 1
            group.processes[placement.rank].do(f"hear(0, 5, {placement.sequence})")
        assert sent.max() - sent.min() <= 1
        assert ledger.in_flight.requests.tolist() == sent.tolist()
        for rank in range(RANKS):
            group.publish(rank)
        group.see(group.has("version", 1, 1, 1))
        dispatcher.observe()
        assert ledger.in_flight.requests.tolist() == [0, 0, 0]
        assert ledger.in_flight.tokens.tolist() == [0, 0, 0]
        assert ledger.outstanding.tolist() == sent.tolist()


def test_two_groups_at_once_do_not_meet(make: MakeGroup) -> None:
    one, two = make(), make()
    for group, running in ((one, 1000), (two, 2000)):
        first = group.take_steps(ITERATIONS)
        for process in group.processes:
            process.tell(f"go_on({first}, {running})")
    for group, running in ((one, 1000), (two, 2000)):
        for process in group.processes:
            assert process.answer() <= FEW
        group.until(group.has_gone_on(0, 1, 2, running=running))
        assert (group.table.reports["version"] == ITERATIONS + 1).all()
