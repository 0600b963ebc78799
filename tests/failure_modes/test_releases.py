"""What stays charged, and for how long."""

from __future__ import annotations

from tests.failure_modes import naive_ledgers as ledgers
from tests.failure_modes.finding import finds
from tests.failure_modes.front import ENDINGS, ByOutstanding, Dpbal, Front, spread
from tests.failure_modes.plain import Plain
from tests.failure_modes.test_reports import OURS

MakeFront = type[Front]


@finds(
    {"by outstanding": ByOutstanding, "by tokens": Dpbal, "plain": Plain},
    {ledgers.ForgetsDisconnects: r"\[0, 10\]", ledgers.ReleasesTwice: r"\[10, 0\]"},
)
def test_f07_a_request_is_released_once_however_it_ends(subject: MakeFront) -> None:
    front = subject(2)
    for number in range(100):
        front.dispatch(number, pinned_rank=0)
        front.end(number, ENDINGS[number % len(ENDINGS)])
        if number % 2:
            front.end(number, "finished")  # the engine's last word crosses the client's
    chosen = [front.dispatch(number) for number in range(100, 110)]
    assert spread(chosen, 2) == [5, 5], "ended requests still count, or count less than nothing"


@finds(OURS, {ledgers.StartsAnew: "is forgotten"})
def test_f08_what_has_not_ended_counts_however_long_it_takes(subject: MakeFront) -> None:
    front = subject(2)
    busy = front.dispatch(0, 50_000)
    chosen = [front.dispatch(number, now_s=60.0 * number) for number in range(1, 20)]
    assert spread(chosen, 2)[busy] == 0, "work that has not ended is forgotten"
