"""Whatever becomes of a request inside real engines, nothing of it stays in flight."""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import Any

import pytest

from tests.vllm import scenarios
from tests.vllm.place import Place

pytestmark = pytest.mark.slow

NOTHING = {
    "in_flight": [0, 0],
    "tokens": [[0, 0], [0, 0]],
    "outstanding": [0, 0],
    "owners": 0,
    "holding_tokens": [0, 0],
    "waiting": [0, 0],
    "kv_used_tokens": [0, 0],
}


class Tried:
    """Runs the driver once for each kind of engines."""

    def __init__(self) -> None:
        self.run = cache(self._run)

    def _run(self, name: str) -> dict[str, Any]:
        place = Place()
        try:
            driver = place.start(sys.executable, "-m", scenarios.__name__, name)
            output, errors = driver.communicate(timeout=900)
            assert driver.returncode == 0, errors[-3000:]
            place.wait(place.is_empty, "a clean end")
        finally:
            place.close()
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found


@pytest.fixture(scope="session")
def tried() -> Tried:
    return Tried()


ALL = [
    (name, scenario.__name__)
    for name, (_, _, several) in scenarios.RUNS.items()
    for scenario in several
    if scenario is not scenarios.killed
]


@pytest.mark.parametrize(("name", "scenario"), ALL)
def test_nothing_stays_in_flight(tried: Tried, name: str, scenario: str) -> None:
    found = dict(tried.run(name)[scenario])
    del found["result"]
    assert found == NOTHING


@pytest.mark.parametrize("name", scenarios.RUNS)
def test_every_request_is_released_once(tried: Tried, name: str) -> None:
    assert tried.run(name)["unknown_releases"] == [0, 0]


@pytest.mark.parametrize("name", scenarios.RUNS)
def test_every_dispatch_is_acknowledged_over_every_transport(tried: Tried, name: str) -> None:
    found = tried.run(name)
    assert found["finished"]["result"] == [[[4]] * 10, True]
    assert found.get("still_acknowledged", name == "independent")  # whose engines have died


@pytest.mark.parametrize("name", ["independent", "async"])
def test_what_is_cancelled_or_preempted_does_not_disturb_the_others(
    tried: Tried, name: str
) -> None:
    found = tried.run(name)
    assert found["cancelled_in_the_queue"]["result"] == [True, [[60]] * 3]
    assert found["preempted"]["result"] == [[300]] * 6
    assert found["preemptions"] > 0


@pytest.mark.parametrize("name", scenarios.RUNS)
def test_requests_were_dispatched_before_they_were_cancelled(tried: Tried, name: str) -> None:
    found = tried.run(name)
    assert found["cancelled_before_it_is_accepted"]["result"] >= 10
    assert found["cancelled_in_mid_stream"]["result"] == 3


def test_a_rejected_request_is_charged_only_if_it_was_sent(tried: Tried) -> None:
    found = tried.run("independent")
    dispatched, message = found["rejected_by_the_front_end"]["result"]
    assert (dispatched, "maximum context length" in message) == (0, True)
    assert found["rejected_by_the_engine"]["result"] == 1


def test_a_pinned_request_goes_where_it_is_pinned_and_is_charged_there(tried: Tried) -> None:
    charged, given, message = tried.run("independent")["pinned"]["result"]
    assert (charged, given) == ([0, 1], [20])
    assert "out of range" in message


def test_each_sample_of_a_request_is_a_dispatch(tried: Tried) -> None:
    given, dispatched = tried.run("independent")["sampled_several_times"]["result"]
    assert (given, dispatched) == ([5, 5, 5], 3)


@pytest.mark.parametrize("count", [510, 511, 512, 5_000])
def test_all_that_no_report_covers_is_in_flight(tried: Tried, count: int) -> None:
    found = tried.run("independent")[f"dispatched_{count}_before_a_report"]
    charged, tokens = found["result"]
    assert sum(charged) == count
    assert abs(charged[0] - charged[1]) <= 2  # and was balanced by nothing else
    assert tokens == count


def test_a_request_goes_where_its_prefix_is(tried: Tried) -> None:
    first, others, is_known = tried.run("async")["a_prefix_is_followed"]["result"]
    assert is_known
    assert first[1] == 0
    assert others == [[first[0], 320]] * 5


def test_front_ends_know_what_ranks_have_evicted(tried: Tried) -> None:
    before, is_gone, (_, cached) = tried.run("async")["an_eviction_is_known"]["result"]
    assert any(any(blocks) for blocks in before)
    assert (is_gone, cached) == (True, 0)


def test_front_ends_know_when_caches_are_cleared(tried: Tried) -> None:
    before, was_reset, is_known, (_, cached) = tried.run("async")["a_reset_is_known"]["result"]
    assert any(any(blocks) for blocks in before)
    assert (was_reset, is_known, cached) == (True, True, 0)


@pytest.mark.parametrize("name", ["lockstep", "async lockstep"])
def test_ranks_of_a_lockstep_group_wait_for_work_and_start_again(tried: Tried, name: str) -> None:
    found = tried.run(name)
    assert found["one_rank_alone"]["result"] == [[50]] * 3
    assert found["two_bursts"]["result"] == [[10]] * 12
    assert found["steps"][0] > found["steps"][1] > 0


@pytest.mark.parametrize(
    ("name", "share"),
    [("lockstep", 1 / 4), ("async lockstep", 1 / 2)],  # waves are short; messages may be late
)
def test_ranks_know_each_other_in_all_steps_but_the_first_of_a_wave(
    tried: Tried, name: str, share: float
) -> None:
    found = tried.run(name)
    assert 0 < found["alone"] < share * sum(found["steps"])


def test_requests_of_a_dead_engine_end(tried: Tried) -> None:
    assert tried.run("independent")["killed"]["result"] == [True] * 4
