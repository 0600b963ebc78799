"""The processes that tests use are what they are taken for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.transports.processes import PATIENCE_S, ROOT, Process


def test_each_is_a_process_of_its_own() -> None:
    one, two = Process("import os; x = 1"), Process("import os; x = 2")
    assert one.do("x") + two.do("x") == 3
    assert len({one.do("os.getpid()"), two.do("os.getpid()"), os.getpid()}) == 3
    assert one.pid == one.do("os.getpid()")
    assert (one.end(), two.end(signal.SIGKILL)) == (0, -signal.SIGKILL)


def test_its_exit_code_and_its_last_words_are_known() -> None:
    failed = Process("import sys")
    with pytest.raises(AssertionError, match="on purpose"):
        failed.do("raise SystemError('on purpose')")
    assert failed.end() == 1
    left = Process("import sys")
    left.tell("sys.exit(7)")
    assert left.end() == 7


def test_one_that_has_started_others_can_end() -> None:
    parent = Process("import os, signal")
    parent.do("child = os.fork()\nif not child: signal.pause()")
    (child,) = parent.left_running()
    assert child == parent.do("child")
    parent.tell("os._exit(0)")
    assert parent.end() == 0
    os.kill(child, signal.SIGKILL)


def test_a_stopped_one_goes_on() -> None:
    process = Process("x = 1")
    process.send(signal.SIGSTOP)
    process.until_stopped()
    process.tell("x + 1")
    process.send(signal.SIGCONT)
    assert process.answer() == 2
    process.end()


def test_a_new_interpreter_has_imported_nothing() -> None:
    new = Process("import sys", is_new=True)
    assert new.do("'numpy' in sys.modules") is False
    assert new.end() == 0
    with_it = Process("import sys", modules=["cmd"])
    assert with_it.do("'cmd' in sys.modules") is True
    assert with_it.end() == 0


def test_they_live_in_the_environment_of_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPBAL_TEST", "here")
    monkeypatch.chdir(tmp_path)
    process = Process("import os")
    assert process.do("[os.environ['DPBAL_TEST'], os.getcwd()]") == ["here", str(tmp_path)]
    process.end()


IS_KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from tests.transports.processes import Process
stopped, other = Process(), Process()
stopped.send(signal.SIGSTOP)
print(os.getpgid(stopped.pid), stopped.pid, other.pid, flush=True)
print(os.popen(f"ps -o ppid= -p {{other.pid}}").read().strip(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_they_end_with_the_tests_however_these_end() -> None:
    killed = subprocess.run(
        [sys.executable, "-c", IS_KILLED.format(root=str(ROOT))], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    pids = [int(word) for word in killed.stdout.split()]
    assert len(pids) == 4
    deadline_s = time.monotonic() + PATIENCE_S
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
