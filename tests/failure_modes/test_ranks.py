"""When a rank reports: vLLM's real scheduler, without an engine around it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from dpbal.backends.vllm.acknowledgement import Dispatched, attach
from tests.failure_modes import naive_ranks as naive
from tests.failure_modes.finding import finds
from tests.vllm.conftest import _vllm as _vllm
from tests.vllm.conftest import make_engine as make_engine
from tests.vllm.conftest import model_folder as model_folder
from tests.vllm.conftest import watched as watched
from tests.vllm.engine import Engine, MakeEngine
from tests.vllm.reports import Watched

MakeScheduler = Callable[[], type]
StartRank = Callable[[MakeScheduler], Engine]

OURS = {"dpbal": naive.reports_always}


@pytest.fixture
def start_rank(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> StartRank:
    """Starts a rank with a scheduler."""

    def start(scheduler: MakeScheduler) -> Engine:
        where = "dpbal.backends.vllm.rank.scheduler.ReportingScheduler"
        monkeypatch.setattr(where, scheduler())
        return make_engine()

    return start


@finds(OURS, {naive.samples_before_the_end: "last word is that it holds 3"})
def test_f10_an_idle_ranks_last_word_is_that_it_is_idle(
    subject: MakeScheduler, start_rank: StartRank, watched: Watched
) -> None:
    engine = start_rank(subject)
    engine.add("1", [20] * 30, max_tokens=3, stops=False)
    engine.drain()
    held = watched.report()["holding_tokens"]
    assert held == 0, f"an idle rank's last word is that it holds {held} tokens"


@finds(OURS, {naive.reports_batches: "last word is that it holds 3"})
def test_f10_a_rank_whose_requests_were_all_aborted_says_so(
    subject: MakeScheduler, start_rank: StartRank, watched: Watched
) -> None:
    engine = start_rank(subject)
    engine.add("1", [20] * 30, max_tokens=50, stops=False)
    engine.step()
    engine.abort("1")
    engine.drain()
    held = watched.report()["holding_tokens"]
    assert held == 0, f"an idle rank's last word is that it holds {held} tokens"


@finds(OURS, {naive.reports_batches: "reports 0 requests"})
def test_f11_a_rank_that_can_compute_nothing_reports_what_waits_there(
    subject: MakeScheduler, start_rank: StartRank, watched: Watched
) -> None:
    from vllm.v1.request import RequestStatus

    engine = start_rank(subject)
    for number in (1, 2):
        headers = attach(None, Dispatched(0, 70, number))
        engine.add(str(number), [20] * 30, max_tokens=2, headers=headers)
        request = engine.requests[-1]  # its grammar is being compiled
        request.status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
        request.structured_output_request = SimpleNamespace(grammar=None)
        engine.step()
        assert engine.given[-1] == 0
        report = watched.report()
        waiting = report["waiting"]
        assert waiting == number, f"a rank on which {number} wait reports {waiting} requests"
        assert report["waiting_tokens"] == 30 * number
        assert watched.received()[0] == (70, number)


@finds(OURS, {naive.reports_steps: "reports 0 requests"})
def test_f11_a_paused_rank_reports_what_comes(
    subject: MakeScheduler, start_rank: StartRank, watched: Watched
) -> None:
    from vllm.v1.core.sched.interface import PauseState

    engine = start_rank(subject)
    engine.scheduler.set_pause_state(PauseState.PAUSED_ALL)  # it takes no turn
    headers = attach(None, Dispatched(0, 70, 1))
    engine.add("1", [20] * 30, max_tokens=2, headers=headers)
    waiting = watched.report()["waiting"]
    assert waiting == 1, f"a rank on which 1 waits reports {waiting} requests"
    assert watched.received()[0] == (70, 1)


@finds(OURS, {naive.reports_every_turn: "reports of nothing"})
def test_f28_a_rank_without_requests_reports_nothing(
    subject: MakeScheduler, start_rank: StartRank, watched: Watched
) -> None:
    engine = start_rank(subject)
    engine.add("1", [20] * 30, max_tokens=3)
    engine.drain()
    before = watched.report()["version"]
    for _ in range(1000):
        engine.step()
    reports = watched.report()["version"] - before
    assert reports == 0, f"{reports} reports of nothing"
