"""A process that is killed takes those with it that it forked."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil

FORKS = """
import os, time
from dpbal.backends.vllm.children import mortal_children
def fork():
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    return pid
with mortal_children():
    mortal = fork()
print(mortal, fork(), flush=True)
time.sleep(60)
"""


def test_forked_processes_die_with_the_one_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FORKS], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        mortal, other = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        deadline_s = time.monotonic() + 20
        while _lives(mortal) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert not _lives(mortal)
        assert _lives(other)  # forked after the context
        other.kill()


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
