"""In flight and outstanding: charged once, covered by what a rank acknowledges, released once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpbal.core import LoadTable, Request
from dpbal.ledger import Ledger
from dpbal.modes import LedgerMode

RANKS = 3


def request(number: int, tokens: int = 10) -> Request:
    return Request(id=number, arrival_s=0.0, prompt_tokens=tokens, max_tokens=1)


def reported(table: LoadTable, rank: int) -> None:
    table.reports[rank]["version"] += 1
    table.update_selectable()


def acknowledge(
    table: LoadTable, rank: int, sequence: int, dispatcher: int = 0, epoch: int = 1
) -> None:
    """Publish a report of a rank that has received all up to ``sequence``."""
    table.received_sequence[rank, dispatcher] = sequence
    table.received_epoch[rank, dispatcher] = epoch
    reported(table, rank)


def restart(table: LoadTable, rank: int) -> None:
    table.reports[rank]["epoch"] += 1
    reported(table, rank)


def table_of_live_ranks(ranks: int = RANKS, dispatchers: int = 1) -> LoadTable:
    table = LoadTable(ranks, dispatchers)
    table.reports["epoch"] = 1
    table.reports["version"] = 1
    table.update_selectable()
    return table


def totals(ledger: Ledger) -> list[list[float]]:
    requests, tokens, prefill_s, _ = ledger.in_flight
    columns = (requests, tokens, prefill_s, ledger.outstanding)
    return [[float(total) for total in column] for column in columns]


@pytest.mark.parametrize("mode", list(LedgerMode))
def test_a_dispatch_is_in_flight_and_outstanding(mode: LedgerMode) -> None:
    ledger = Ledger(RANKS, mode=mode)
    assert ledger.charge(request(1, tokens=30), rank=2, prefill_s=0.5) == 1
    assert ledger.charge(request(2, tokens=12), rank=2, prefill_s=0.25) == 2
    assert totals(ledger) == [[0, 0, 2], [0, 0, 42], [0, 0, 0.75], [0, 0, 2]]


def test_prefill_in_flight_is_without_the_hits_that_are_expected() -> None:
    table, ledger = table_of_live_ranks(), Ledger(RANKS)
    ledger.charge(request(1, tokens=30), rank=1, prefill_s=0.5, cached_tokens=20)
    ledger.charge(request(2, tokens=12), rank=1, prefill_s=0.25)
    assert ledger.in_flight.tokens.tolist() == [0, 42, 0]
    assert ledger.in_flight.prefill_tokens.tolist() == [0, 22, 0]
    acknowledge(table, 1, sequence=1)
    ledger.observe(table)
    assert ledger.in_flight.prefill_tokens.tolist() == [0, 12, 0]
    ledger.release(2)
    assert ledger.in_flight.prefill_tokens.tolist() == [0, 0, 0]


def test_an_acknowledged_dispatch_is_no_longer_in_flight_but_outstanding() -> None:
    table, ledger = table_of_live_ranks(), Ledger(RANKS)
    for number in range(3):
        ledger.charge(request(number), rank=1, prefill_s=1.0)
    acknowledge(table, 1, sequence=2)
    ledger.observe(table)
    assert totals(ledger) == [[0, 1, 0], [0, 10, 0], [0, 1, 0], [0, 3, 0]]


def test_a_report_never_erases_what_it_does_not_acknowledge() -> None:
    table, ledger = table_of_live_ranks(), Ledger(RANKS)
    ledger.charge(request(1), rank=1, prefill_s=1.0)
    reported(table, 1)
    ledger.observe(table)
    assert ledger.in_flight.requests.tolist() == [0, 1, 0]


def test_overwrite_erases_whatever_a_newer_report_does_not_show() -> None:
    table, ledger = table_of_live_ranks(), Ledger(RANKS, mode=LedgerMode.overwrite)
    ledger.observe(table)
    for rank in (0, 1, 1):
        ledger.charge(request(ledger.sequence), rank, prefill_s=1.0)
    reported(table, 1)
    ledger.observe(table)
    assert totals(ledger) == [[1, 0, 0], [10, 0, 0], [1, 0, 0], [1, 2, 0]]


def test_overwrite_keeps_what_came_after_the_last_report() -> None:
    table, ledger = table_of_live_ranks(), Ledger(RANKS, mode=LedgerMode.overwrite)
    reported(table, 1)
    ledger.observe(table)
    ledger.charge(request(1), rank=1, prefill_s=1.0)
    reported(table, 0)  # some other rank's report
    ledger.observe(table)
    assert ledger.in_flight.requests.tolist() == [0, 1, 0]


@pytest.mark.parametrize("mode", list(LedgerMode))
def test_release_before_any_report_leaves_nothing(mode: LedgerMode) -> None:
    table, ledger = table_of_live_ranks(), Ledger(RANKS, mode=mode)
    ledger.charge(request(1), rank=1, prefill_s=1.0)
    ledger.charge(request(2), rank=1, prefill_s=0.1)
    ledger.release(2)
    ledger.release(1)
    assert totals(ledger) == [[0] * 3] * 4
    acknowledge(table, 1, sequence=2)  # late, and of no effect
    ledger.observe(table)
    assert totals(ledger) == [[0] * 3] * 4


def test_an_unknown_id_is_counted_and_ignored() -> None:
    ledger = Ledger(RANKS)
    ledger.charge(request(1), rank=0, prefill_s=1.0)
    for request_id in (7, "7", 1, 1):
        ledger.release(request_id)
    assert ledger.unknown_releases == 3
    assert totals(ledger) == [[0] * 3] * 4


def test_an_id_may_be_used_again_only_once_it_has_ended() -> None:
    ledger = Ledger(RANKS)
    ledger.charge(request(1), rank=0, prefill_s=1.0)
    with pytest.raises(ValueError, match="request 1 is outstanding already"):
        ledger.charge(request(1), rank=1, prefill_s=1.0)
    ledger.release(1)
    ledger.charge(request(1), rank=1, prefill_s=1.0)
    assert ledger.outstanding.tolist() == [0, 1, 0]


def test_an_id_used_again_is_not_covered_by_the_acknowledgement_of_its_first_use() -> None:
    table, ledger = table_of_live_ranks(), Ledger(RANKS)
    ledger.charge(request(1), rank=0, prefill_s=1.0)
    ledger.release(1)
    ledger.charge(request(1), rank=0, prefill_s=1.0)
    acknowledge(table, 0, sequence=1)
    ledger.observe(table)
    assert ledger.in_flight.requests.tolist() == [1, 0, 0]


def test_5000_dispatches_before_the_first_report_are_kept_and_then_covered() -> None:
    table, ledger = LoadTable(RANKS), Ledger(RANKS)
    for number in range(5000):
        ledger.observe(table)
        ledger.charge(request(number), rank=number % RANKS, prefill_s=0.1)
    assert ledger.in_flight.requests.tolist() == [1667, 1667, 1666]
    table.reports["epoch"] = 1
    for rank in range(RANKS):
        acknowledge(table, rank, sequence=5000)
    ledger.observe(table)
    assert totals(ledger)[:3] == [[0] * 3] * 3
    assert ledger.outstanding.sum() == 5000


def test_acknowledgements_of_an_earlier_dispatcher_process_are_ignored() -> None:
    table = table_of_live_ranks()
    acknowledge(table, 1, sequence=900, epoch=1)
    ledger = Ledger(RANKS, epoch=2)
    ledger.charge(request(1), rank=1, prefill_s=1.0)
    ledger.observe(table)
    assert ledger.in_flight.requests.tolist() == [0, 1, 0]
    acknowledge(table, 1, sequence=1, epoch=2)
    ledger.observe(table)
    assert ledger.in_flight.requests.tolist() == [0, 0, 0]


def test_dispatchers_do_not_hear_each_others_acknowledgements() -> None:
    table = table_of_live_ranks(dispatchers=2)
    ledgers = [Ledger(RANKS, dispatcher) for dispatcher in range(2)]
    for ledger in ledgers:
        ledger.charge(request(1), rank=0, prefill_s=1.0)
    acknowledge(table, 0, sequence=1, dispatcher=1)
    for ledger in ledgers:
        ledger.observe(table)
    assert [ledger.in_flight.requests[0] for ledger in ledgers] == [1, 0]


@pytest.mark.parametrize("mode", list(LedgerMode))
def test_a_restarted_rank_has_lost_everything_it_was_sent(mode: LedgerMode) -> None:
    table, ledger = table_of_live_ranks(), Ledger(RANKS, mode=mode)
    ledger.observe(table)
    for number, rank in enumerate((0, 1, 1)):
        ledger.charge(request(number), rank, prefill_s=1.0)
    restart(table, 1)
    assert list(ledger.observe(table)) == [1]
    assert list(ledger.observe(table)) == []
    assert totals(ledger) == [[1, 0, 0], [10, 0, 0], [1, 0, 0], [1, 0, 0]]
    ledger.release(1)
    assert ledger.unknown_releases == 1


def test_the_first_report_of_a_rank_is_no_restart() -> None:
    table, ledger = LoadTable(RANKS), Ledger(RANKS)
    ledger.observe(table)
    ledger.charge(request(1), rank=1, prefill_s=1.0)
    restart(table, 1)  # from no epoch to its first
    ledger.observe(table)
    assert ledger.outstanding.tolist() == [0, 1, 0]


def test_nothing_is_looked_at_until_the_table_says_that_it_changed() -> None:
    table, ledger = table_of_live_ranks(), Ledger(RANKS)
    ledger.charge(request(1), rank=0, prefill_s=1.0)
    ledger.observe(table)
    table.received_sequence[0, 0] = 1
    table.received_epoch[0, 0] = 1
    ledger.observe(table)
    assert ledger.in_flight.requests[0] == 1
    table.generation += 1
    ledger.observe(table)
    assert ledger.in_flight.requests[0] == 0


@dataclass
class Sent:
    """A dispatch as a naive recount keeps it."""

    id: int
    rank: int
    sequence: int
    tokens: int
    prefill_s: float
    prefill_tokens: int
    is_covered: bool = False
    is_outstanding: bool = True


Action = Literal["charge", "report", "release", "restart", "forget"]
ACTIONS = st.tuples(
    st.sampled_from(["charge", "charge", "charge", "report", "release", "restart", "forget"]),
    st.integers(0, RANKS - 1),
    st.integers(1, 5000),
)


def recount(history: list[Sent]) -> list[list[float]]:
    uncovered = [sent for sent in history if sent.is_outstanding and not sent.is_covered]
    return [
        [sum(1 for s in uncovered if s.rank == rank) for rank in range(RANKS)],
        [sum(s.tokens for s in uncovered if s.rank == rank) for rank in range(RANKS)],
        [sum(s.prefill_s for s in uncovered if s.rank == rank) for rank in range(RANKS)],
        [sum(s.prefill_tokens for s in uncovered if s.rank == rank) for rank in range(RANKS)],
        [sum(1 for s in history if s.is_outstanding and s.rank == rank) for rank in range(RANKS)],
    ]


@given(mode=st.sampled_from(LedgerMode), actions=st.lists(ACTIONS, max_size=60))
def test_totals_are_those_of_a_naive_recount(
    mode: LedgerMode, actions: list[tuple[Action, int, int]]
) -> None:
    table, ledger = table_of_live_ranks(), Ledger(RANKS, mode=mode)
    ledger.observe(table)
    history: list[Sent] = []
    unknown = ended = forgotten = 0
    for action, rank, value in actions:
        of_rank = [sent for sent in history if sent.rank == rank]
        if action == "charge":
            number = len(history)
            cached = value // (2 + rank)
            sequence = ledger.charge(request(number, value), rank, value * 1e-4, cached)
            history.append(Sent(number, rank, sequence, value, value * 1e-4, value - cached))
        elif action == "report":
            received = of_rank[value % len(of_rank)].sequence if of_rank else 0
            received = max(received, int(table.received_sequence[rank, 0]))
            acknowledge(table, rank, received)
            for sent in of_rank:
                if mode is LedgerMode.overwrite or sent.sequence <= received:
                    sent.is_covered |= sent.is_outstanding
        elif action == "release":
            number = value % (len(history) + 1)  # the last is an id that was never sent
            ledger.release(number)
            if number < len(history) and history[number].is_outstanding:
                history[number].is_outstanding = False
                ended += not history[number].is_covered
            else:
                unknown += 1
        else:
            for sent in of_rank:
                forgotten += sent.is_outstanding and not sent.is_covered
                sent.is_outstanding = False
            if action == "restart":
                restart(table, rank)
            else:
                ledger.forget(rank)
        ledger.observe(table)
        covered = sum(sent.is_covered for sent in history)
        released = (ledger.covered, ledger.ended_uncovered, ledger.forgotten)
        assert released == (covered, ended, forgotten)
        expected = recount(history)
        columns = (*ledger.in_flight, ledger.outstanding)
        for column, theirs in zip(columns, expected, strict=True):
            assert column.tolist() == pytest.approx(theirs, abs=1e-9)
            assert column.min() >= 0
        assert ledger.unknown_releases == unknown
    for sent in history:
        ledger.release(sent.id)
    assert totals(ledger) == [[0] * RANKS] * 4
