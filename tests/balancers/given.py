"""Requests, reports and loads as a test of balancers gives them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dpbal.core import LoadTable, Request, View
from dpbal.dispatcher import Dispatcher
from dpbal.ledger import Ledger
from dpbal.signals import Signal, Unit
from dpbal.step_time import StepTime

STEP_TIME = StepTime(
    prefill_s_per_token=1e-4,
    attention_s_per_pair=1e-8,
    decode_s_per_seq=2e-5,
    kv_s_per_token=3e-8,
)


@dataclass
class Given(Signal):
    """Loads as the test gives them, and how often they were asked for."""

    loads: list[float] = field(default_factory=list)
    asked: int = 0
    unit: Unit = Unit.tokens

    @property
    def counts(self) -> Unit:
        return self.unit

    def load(self, view: View) -> np.ndarray:
        self.asked += 1
        return np.array(self.loads, float)


BLOCK_TOKENS = 5


def request(number: int, tokens: int = 100, first: int | None = None) -> Request:
    """A request whose blocks have hashes that count up from the first; none without one."""
    hashes = None if first is None else np.arange(first, first + tokens // BLOCK_TOKENS)
    return Request(number, 0.0, tokens, 10, hashes, block_tokens=BLOCK_TOKENS)


def report(table: LoadTable, rank: int, **fields: float) -> None:
    """Publish a report of one rank that covers nothing."""
    table.reports[rank]["epoch"] = 1
    table.reports[rank]["version"] += 1
    table.reports[rank]["kv_capacity_tokens"] = 10_000
    for name, value in fields.items():
        table.reports[rank][name] = value
    table.update_selectable()


def view_of(table: LoadTable, loads: list[float]) -> View:
    ledger = Ledger(table.ranks)
    return View(table, ledger.in_flight, ledger.outstanding, Given(loads), STEP_TIME)


def view_of_prefixes(
    table: LoadTable,
    one: Request,
    cached_tokens: list[int],
    loads: list[float] | None = None,
    unit: Unit = Unit.seconds,
) -> View:
    """What a rule sees where ranks hold so many tokens of the prompt, and nothing is in flight."""
    ledger = Ledger(table.ranks)
    signal = Given([0.0] * table.ranks if loads is None else loads, unit=unit)
    view = View(table, ledger.in_flight, ledger.outstanding, signal, STEP_TIME)
    view.cached_tokens = np.array(cached_tokens, np.int64)
    view.own_prefill_s = np.array([own_prefill_s(one, cached) for cached in cached_tokens])
    view.cached_blocks = np.zeros(table.ranks, np.int64)
    return view


def own_prefill_s(one: Request, cached: int) -> float:
    """Seconds of prefill that a request needs where so many tokens of it are cached."""
    return STEP_TIME.prefill_s(one.prompt_tokens) - STEP_TIME.prefill_s(cached)


def ranks_chosen(dispatcher: Dispatcher, count: int) -> list[int]:
    return [dispatcher.dispatch(request(i), now=0.0).rank for i in range(count)]
