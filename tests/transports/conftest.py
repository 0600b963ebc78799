"""Processes for a test, and a look at what they and the test leave in shared memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence

import pytest

from dpbal.sharedmem.segment import FOLDER
from tests.transports.groups import PARAMS, Case, Group
from tests.transports.processes import Process

RANKS = 3

MakeGroup = Callable[..., Group]


@pytest.fixture(params=PARAMS)
def case(request: pytest.FixtureRequest) -> Case:
    """Each transport; one that is patient unless the test waits for whoever was stopped."""
    made: Case = request.param
    is_stopped = request.node.callspec.params.get("how") is signal.SIGSTOP
    return made.hurried if is_stopped else made


@pytest.fixture
def make(case: Case) -> Iterator[MakeGroup]:
    """Makes groups of three ranks, which have all published."""
    made: list[Group] = []

    def make_one(owner: Process | None = None) -> Group:
        group = Group(case, RANKS, owner)
        made.append(group)
        for rank in range(RANKS):
            group.publish(rank, running=rank + 1)
        group.see(group.has("running", 1, 2, 3))
        return group

    yield make_one
    for group in made:
        group.close()


@pytest.fixture
def group(make: MakeGroup) -> Group:
    """One of them."""
    return make()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts processes with some code; none of them leaves a segment."""
    processes: list[Process] = []

    def start_one(code: str, modules: Sequence[str] = ()) -> Process:
        processes.append(Process(code, modules=modules))
        return processes[-1]

    yield start_one
    for process in processes:
        process.end(signal.SIGKILL)
    assert left_by(*(process.pid for process in processes)) == []


@pytest.fixture(autouse=True)
def _leaves_no_segment() -> Iterator[None]:
    yield
    assert left_by(os.getpid()) == []


def left_by(*pids: int) -> list[str]:
    """Names of segments that processes made and that are there."""
    names = [path.name for path in FOLDER.glob("dpbal-*")]
    return [name for name in names if int(name.split("-")[3]) in pids]
