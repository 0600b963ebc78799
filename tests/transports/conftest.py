"""Processes for a test, and a look at what they and the test leave in shared memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from dpbal.sharedmem.segment import FOLDER
from tests.transports.processes import Process


@pytest.fixture
def start() -> Iterator[Callable[[str], Process]]:
    """Starts processes with some code; none of them leaves a segment."""
    processes: list[Process] = []

    def start_one(code: str) -> Process:
        processes.append(Process(code))
        return processes[-1]

    yield start_one
    for process in processes:
        if not process.has_ended:
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
