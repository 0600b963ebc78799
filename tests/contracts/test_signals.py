"""What every signal must do, and the number of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from dpbal.balancers import RoundRobin
from dpbal.core import REPORT, LoadTable, Request, View
from dpbal.dispatcher import Dispatcher
from dpbal.errors import ConfigError
from dpbal.ledger import Ledger
from dpbal.signals import SIGNALS, DecodeLoad, InFlightSignal, Signal, Sum, Unit
from dpbal.signals.base import Reported
from dpbal.step_time import StepTime

NAMES = sorted(SIGNALS)
STEP_TIME = StepTime(
    prefill_s_per_token=1e-3,
    attention_s_per_pair=1e-6,
    decode_s_per_seq=2e-5,
    kv_s_per_token=3e-8,
)


def view_of(signal: Signal, ranks: int = 4, dispatched: int = 6) -> View:
    """A view on random reports, with a few requests of 10, 20, 30 ... tokens in flight."""
    table = LoadTable(ranks)
    generator = np.random.default_rng(ranks)
    for name in REPORT.names or ():
        table.reports[name] = generator.integers(1, 1000, ranks)
    table.received_epoch[:] = 0
    table.update_selectable()
    ledger = Ledger(ranks)
    balancer = RoundRobin()
    balancer.start(ranks, seed=0)
    dispatcher = Dispatcher(balancer, signal, ledger, table, STEP_TIME)
    for i in range(dispatched):
        dispatcher.dispatch(Request(i, 0.0, 10 * (i + 1), 5), now=0.0)
    return View(table, ledger.in_flight, ledger.outstanding, signal, STEP_TIME)


IN_FLIGHT = {  # of 10, 20, ... 60 tokens in turn over 4 ranks
    Unit.requests: [2, 2, 1, 1],
    Unit.tokens: [60, 80, 30, 40],
    Unit.seconds: [
        sum(STEP_TIME.prefill_s(tokens) for tokens in rank)
        for rank in ((10, 50), (20, 60), (30,), (40,))
    ],
}


@pytest.fixture(params=NAMES)
def signal(request: pytest.FixtureRequest) -> Signal:
    return SIGNALS.build(request.param, {})


def test_is_one_finite_number_for_each_rank(signal: Signal) -> None:
    for ranks in (4, 1, 9, 4):  # one object may serve groups of several sizes
        load = signal.load(view_of(signal, ranks))
        assert load.shape == (ranks,)
        assert np.isfinite(load).all()


def test_is_what_the_view_shows(signal: Signal) -> None:
    view = view_of(signal)
    assert view.loads.tolist() == signal.load(view).tolist()


def test_writes_nothing_that_it_sees(signal: Signal) -> None:
    view = view_of(signal)
    reports = view.reports.copy()
    in_flight = [totals.copy() for totals in view.in_flight]
    first = signal.load(view).tolist()
    assert signal.load(view).tolist() == first
    assert (view.reports == reports).all()
    assert [totals.tolist() for totals in view.in_flight] == [t.tolist() for t in in_flight]


def test_says_what_it_counts(signal: Signal) -> None:
    assert signal.counts in Unit


@pytest.mark.parametrize(
    ("name", "fields", "unit"),
    [
        ("holding_tokens", ["holding_tokens"], Unit.tokens),
        ("get_load", ["kv_used_tokens", "waiting_tokens"], Unit.tokens),
        ("requests", ["running", "waiting"], Unit.requests),
        ("prefill_work", ["prefill_s"], Unit.seconds),
        ("decode_work", ["decode_s"], Unit.seconds),
    ],
)
def test_reported_signals_add_their_fields(name: str, fields: list[str], unit: Unit) -> None:
    signal = SIGNALS.build(name, {})
    view = view_of(signal)
    expected = np.sum([view.reports[name] for name in fields], axis=0)
    assert signal.load(view).tolist() == expected.tolist()
    assert signal.counts is unit


def test_decode_load_is_what_decoding_all_that_was_given_takes() -> None:
    signal = DecodeLoad()
    view = view_of(signal)
    seqs = view.reports["running"] + view.reports["waiting"] + IN_FLIGHT[Unit.requests]
    tokens = view.reports["holding_tokens"] + IN_FLIGHT[Unit.tokens]
    expected = [
        STEP_TIME.decode_s(s, t) for s, t in zip(seqs.tolist(), tokens.tolist(), strict=True)
    ]
    assert signal.load(view) == pytest.approx(expected)
    assert signal.counts is Unit.seconds


@pytest.mark.parametrize("unit", list(Unit))
def test_in_flight_counts_in_its_unit(unit: Unit) -> None:
    signal = InFlightSignal(unit)
    assert signal.load(view_of(signal)) == pytest.approx(IN_FLIGHT[unit])
    assert signal.counts is unit


@pytest.mark.parametrize(
    ("term", "unit"),
    [
        ("holding_tokens", Unit.tokens),
        ("get_load", Unit.tokens),
        ("requests", Unit.requests),
        ("prefill_work", Unit.seconds),
    ],
)
def test_in_flight_counts_what_the_other_terms_count(term: str, unit: Unit) -> None:
    signal = Sum({term: 1.0, "in_flight": 2.0})
    view = view_of(signal)
    reported = SIGNALS.build(term, {}).load(view)
    assert signal.load(view) == pytest.approx(reported + 2 * np.array(IN_FLIGHT[unit]))
    assert signal.counts is unit


def test_sum_weighs_its_terms() -> None:
    signal = Sum({"prefill_work": 2.0, "decode_work": 0.001})
    view = view_of(signal)
    expected = 2 * view.reports["prefill_s"] + 0.001 * view.reports["decode_s"]
    assert signal.load(view) == pytest.approx(expected)


def test_sum_takes_any_registered_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Age(Signal):
        @property
        def counts(self) -> Unit:
            return Unit.seconds

        def load(self, view: View) -> np.ndarray:
            return view.reports["oldest_wait_s"] * 10

    monkeypatch.setitem(SIGNALS._classes, "age", Age)
    signal = Sum({"age": 0.5, "prefill_work": 1.0})
    view = view_of(signal)
    expected = 5 * view.reports["oldest_wait_s"] + view.reports["prefill_s"]
    assert signal.load(view) == pytest.approx(expected)


def test_sum_uses_what_a_signal_makes_of_its_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    class Squared(Reported):
        fields = ("waiting",)
        unit = Unit.requests

        def load(self, view: View) -> np.ndarray:
            return view.reports["waiting"] ** 2

    monkeypatch.setitem(SIGNALS._classes, "squared", Squared)
    signal = Sum({"squared": 2.0})
    view = view_of(signal)
    assert signal.load(view) == pytest.approx(2.0 * view.reports["waiting"] ** 2)


def test_sum_without_terms_is_that_of_minimum_tokens() -> None:
    view = view_of(Sum())
    expected = view.reports["holding_tokens"] + IN_FLIGHT[Unit.tokens]
    assert Sum().load(view).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"requests": 1.0, "prefill_work": 1.0}, "requests in requests, prefill_work in seconds"),
        ({"holding_token": 1.0}, "did you mean 'holding_tokens'"),
        ({"sum": 1.0}, "unknown term 'sum'"),
        ({"in_flight": 1.0}, "in_flight alone has no unit"),
        ({}, "terms is empty; type 'signal.terms={holding_tokens: 1, in_flight: 1}'"),
        ({"requests": -1.0}, "the weight of requests must not be negative, got -1"),
        ({"requests": float("nan")}, "signal.terms.requests must be a finite number, got nan"),
    ],
)
def test_sum_refuses_what_does_not_add_up(terms: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SIGNALS.build("sum", {"terms": terms})
