"""Whom a rule chooses: nobody dead, the least work and not memory, and hits within bounds."""

from __future__ import annotations

from tests.failure_modes import naive_choices as choices
from tests.failure_modes.finding import finds
from tests.failure_modes.front import (
    ByOutstanding,
    ByPrefill,
    ByPrefix,
    ByRequests,
    ByRing,
    Dpbal,
    Front,
    InTurn,
)
from tests.failure_modes.plain import Plain

MakeFront = type[Front]


@finds(
    {
        "by tokens": Dpbal,
        "by requests": ByRequests,
        "by outstanding": ByOutstanding,
        "by prefill": ByPrefill,
        "by prefix": ByPrefix,
        "by ring": ByRing,
        "in turn": InTurn,
        "plain": Plain,
    },
    {choices.IgnoresStatus: "is dead and was chosen"},
)
def test_f21_a_dead_rank_is_not_chosen_though_it_has_nothing_to_do(subject: MakeFront) -> None:
    front = subject(3)
    front.report(0)
    for rank in (1, 2):
        front.report(rank, 9000, requests=50)
    front.gone(0)
    chosen = [front.dispatch(number, prefix=0) for number in range(20)]
    assert 0 not in chosen, "rank 0 is dead and was chosen"


@finds(
    {"by prefill": ByPrefill, "by prefix": ByPrefix},
    {choices.ResidentIsBusy: "long session", Dpbal: "long session"},
)
def test_f23_a_long_session_that_decodes_is_not_a_queue(subject: MakeFront) -> None:
    front = subject(2)
    front.report(0, resident_tokens=300_000, requests=1)
    front.report(1, 50_000, requests=1)
    assert front.dispatch(0) == 0, "a rank that decodes one long session looks busier than a queue"


@finds({"by prefix": ByPrefix}, {choices.WholePrompt: "counts as if nothing"})
def test_f24_what_is_cached_is_not_charged(subject: MakeFront) -> None:
    front = subject(2)
    front.dispatch(0, 100_000, pinned_rank=0, prefix=7)
    front.end(0)
    front.dispatch(1, 100_000, pinned_rank=0, prefix=7)
    front.dispatch(2, 5_000, pinned_rank=1)
    assert front.dispatch(3) == 0, "a prompt that is cached counts as if nothing of it were"


@finds({"by prefix": ByPrefix, "by ring": ByRing}, {choices.LongestMatch: r"\[256, 0"})
def test_f25_a_group_of_samples_does_not_stay_on_the_rank_of_its_prompt(
    subject: MakeFront,
) -> None:
    front = subject(8)
    counts = [0] * 8
    for rank in range(8):
        front.report(rank)
    for number in range(256):
        rank = front.dispatch(number, 2000, prefix=7)
        counts[rank] += 1
        front.report(rank, received=[number], requests=counts[rank])
    assert max(counts) <= 2 * 256 / 8, f"samples of one prompt are spread as {counts}"
