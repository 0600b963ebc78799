"""However a run of real engines ends, nothing is left of it."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from tests.vllm.place import Place

pytestmark = pytest.mark.slow

COMMAND = [
    "dpbal-run",
    *("backend=vllm", "profile=llama31_8b_h200", "compare=false"),
    *("balancer=marginal_prefill", "indexer=kv_events"),  # which have sockets of their own
    *("group.ranks=2", "workload=synthetic", "workload.load=null"),
]
LONG = ["group.kind=independent", "workload.requests=2000", "workload.rate=5"]


def started(place: Place, *overrides: str) -> subprocess.Popen[str]:
    return place.start(*COMMAND, *overrides)


def is_running(place: Place) -> bool:
    """Whether engines have made steps, and requests are being sent."""
    return len(place.records()) == 2


def check_the_end(place: Place, run: subprocess.Popen[str]) -> str:
    """The one line that it says, after it has left nothing."""
    _, errors = run.communicate(timeout=60)
    place.wait(place.is_empty, "a clean end")
    assert run.returncode != 0
    assert "Traceback" not in errors
    return errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_nothing(place: Place, number: signal.Signals) -> None:
    run = started(place, *LONG)
    place.wait(lambda: is_running(place), "the first steps", run)
    time.sleep(1.5)
    run.send_signal(number)
    check_the_end(place, run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_while_engines_start_leaves_nothing(
    place: Place, number: signal.Signals
) -> None:
    run = started(place, *LONG)
    place.wait(lambda: len(place.engines()) == 2, "a start of engines", run)
    run.send_signal(number)
    check_the_end(place, run)


def test_a_run_whose_engine_is_killed_says_so_and_leaves_nothing(place: Place) -> None:
    run = started(place, *LONG)
    place.wait(lambda: is_running(place), "the first steps", run)
    time.sleep(1.5)
    place.engines()[0].kill()
    errors = check_the_end(place, run)
    assert "an engine died after" in errors
