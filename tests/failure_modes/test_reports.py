"""What a report may and may not change, on dpbal's own objects and on those that had it wrong."""

from __future__ import annotations

from tests.failure_modes import naive_choices as choices
from tests.failure_modes import naive_ledgers as ledgers
from tests.failure_modes.finding import finds
from tests.failure_modes.front import ByPrefill, ByRequests, Dpbal, Front, Overwriting, spread
from tests.failure_modes.plain import Plain

MakeFront = type[Front]

OURS = {"dpbal": Dpbal, "plain": Plain}
"""The shortest form of what is right must pass too: what is found is the failure, not brevity."""


@finds(
    OURS,
    {
        ledgers.EveryReportOverwrites: "erased what is on its way",
        Overwriting: "erased what is on",
    },
)
def test_f01_a_report_does_not_erase_what_it_does_not_cover(subject: MakeFront) -> None:
    front = subject(2)
    chosen = []
    for number in range(8):
        front.report(0, 0)  # both made before any of the requests came
        front.report(1, 500)
        chosen.append(front.dispatch(number, 1000))
    assert spread(chosen, 2) == [4, 4], "an old report erased what is on its way: the burst herds"


@finds(OURS, {ledgers.OnlyRanksRelease: "charged for ever"})
def test_f05_what_no_rank_ever_received_is_released_when_it_ends(subject: MakeFront) -> None:
    front = subject(2)
    first = front.dispatch(0, 5000)
    front.end(0, "rejected")  # by the rank's full queue; its scheduler has never seen it
    front.report(0)
    front.report(1)
    chosen = [front.dispatch(number) for number in range(1, 9)]
    assert spread(chosen, 2) == [4, 4], f"rank {first} is charged for ever for what it rejected"


@finds(OURS, {ledgers.KnowsEveryId: "data consistency is wrong"})
def test_f06_a_rank_may_report_what_nobody_here_has_sent(subject: MakeFront) -> None:
    front = subject(2)
    front.dispatch(0, 1000, pinned_rank=1)
    front.report(1, 1000, received=[0, 77])
    front.report(0, received=[-1])
    front.end(77)
    front.end(0)
    front.report(1)
    chosen = [front.dispatch(number) for number in range(1, 5)]
    assert spread(chosen, 2) == [2, 2], "an id that is not known has changed the loads"


@finds(OURS, {choices.ReportsOnly: "not reported is not there"})
def test_f12_without_any_report_loads_are_what_was_sent_and_has_not_ended(
    subject: MakeFront,
) -> None:
    front = subject(8)
    sent = {number: front.dispatch(number) for number in range(64)}
    for number, rank in sent.items():
        if rank % 2:
            front.end(number)
    chosen = [front.dispatch(number) for number in range(64, 96)]
    wanted = [0, 8] * 4
    assert spread(chosen, 8) == wanted, "what is not reported is not there: busy ranks get more"


@finds(OURS, {choices.MissingIsZero: "looks idle", choices.MissingIsMinusOne: "looks idle"})
def test_f13_a_rank_that_has_said_nothing_does_not_look_idle(subject: MakeFront) -> None:
    front = subject(2)
    front.report(1, 5000)
    assert front.dispatch(0) == 1, "a rank whose load is missing looks idle"
    front.report(0, 9000)
    assert front.dispatch(1) == 1
    front.report(1, 9500, received=[0, 1])
    assert front.dispatch(2) == 0


@finds(OURS, {choices.SilentIsIdle: "looks idle"})
def test_f14_a_rank_that_has_fallen_silent_does_not_look_idle(subject: MakeFront) -> None:
    front = subject(2)
    front.report(1, 5000)
    chosen = []
    for number in range(20):
        now_s = 2.0 * number
        front.report(0, 1000, received=range(number), now_s=now_s)
        chosen.append(front.dispatch(number, now_s=now_s))
        front.end(number)
    assert spread(chosen, 2) == [20, 0], "a rank that has fallen silent looks idle"


@finds(
    {**OURS, "by requests": ByRequests, "by prefill": ByPrefill},
    {ledgers.CountsTwice: "counted twice"},
)
def test_f20_a_request_counts_once_while_it_is_sent_received_and_reported(
    subject: MakeFront,
) -> None:
    front = subject(2)
    front.report(0)
    front.report(1)
    first = front.dispatch(0, 1000)
    front.report(first, 1000, received=[0], requests=2)
    front.report(1 - first, 1500, requests=3)
    assert front.dispatch(1) == first, "a request that its rank has reported is counted twice"


@finds(OURS, {ledgers.PinnedIsFree: "pinned requests are free"})
def test_f22_pinned_requests_are_charged(subject: MakeFront) -> None:
    front = subject(2)
    for number in range(10):
        assert front.dispatch(number, 1000, pinned_rank=0) == 0
    chosen = [front.dispatch(number, 1000) for number in range(10, 20)]
    assert spread(chosen, 2) == [0, 10], "pinned requests are free"


@finds(OURS, {ledgers.OwnOnly: "others have sent"})
def test_f22_what_others_have_sent_is_counted(subject: MakeFront) -> None:
    front = subject(2)
    front.report(0, 5000)
    front.report(1)
    chosen = [front.dispatch(number, 1000) for number in range(5)]
    assert chosen == [1] * 5, "what others have sent to a rank does not count"
