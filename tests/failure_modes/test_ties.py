"""Who gets a request when ranks are equal, and before anything is known of them."""

from __future__ import annotations

from tests.failure_modes import naive_choices as choices
from tests.failure_modes.finding import finds
from tests.failure_modes.front import ByRequests, Dpbal, Front, InTurn, spread
from tests.failure_modes.test_reports import OURS

MakeFront = type[Front]


@finds({**OURS, "by requests": ByRequests}, {choices.FirstOfEqual: "one rank gets them all"})
def test_f02_equal_ranks_take_turns(subject: MakeFront) -> None:
    front = subject(8)
    chosen = []
    for number in range(800):
        chosen.append(front.dispatch(number))
        front.end(number)  # before the next one comes
    assert spread(chosen, 8) == [100] * 8, "ranks are equal, and one rank gets them all"


@finds(OURS, {choices.ReportsOnly: "the burst went to"})
def test_f15_a_burst_before_the_first_report_is_spread_by_its_tokens(subject: MakeFront) -> None:
    front = subject(8)
    tokens = [0] * 8
    for number in range(1000):
        size = 5000 if number % 8 == 0 else 10
        tokens[front.dispatch(number, size)] += size
    assert max(tokens) - min(tokens) <= 5000, f"the burst went to {tokens}"


@finds({"in turn": InTurn, "by tokens": Dpbal}, {choices.ProbesTakeTurns: "probes have moved"})
def test_f26_probes_change_no_choice(subject: MakeFront) -> None:
    quiet, probed = subject(4), subject(4)
    chosen = []
    for number in range(40):
        chosen.append(probed.dispatch(number))
        probed.probe()
    wanted = [quiet.dispatch(number) for number in range(40)]
    assert chosen == wanted, "probes have moved the choice"
