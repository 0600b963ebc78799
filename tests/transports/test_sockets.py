"""No way of dying leaves a folder for sockets for good, and nothing else is taken for one."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dpbal.transports import sockets
from dpbal.transports.sockets import Lock, SocketError, Sockets
from tests.transports.processes import Process

OLD_S = 1_000_000_000


def owner(base: Path, then: str = "") -> Process:
    """A process that has made a folder, with something in it."""
    return Process(
        "import os, signal; from pathlib import Path\n"
        "from dpbal.transports.sockets import Sockets\n"
        f"s = Sockets.create(Path({str(base)!r}), 'test'); Path(s.address, '0').touch()\n{then}"
    )


def names(base: Path) -> set[str]:
    return {path.name for path in base.iterdir()}


def test_those_of_dead_owners_go_and_those_of_live_ones_stay(tmp_path: Path) -> None:
    live = Sockets.create(tmp_path, "test")
    assert owner(tmp_path).end(signal.SIGKILL) == -signal.SIGKILL
    assert len(names(tmp_path)) == 2
    made = Sockets.create(tmp_path, "other")
    assert names(tmp_path) == {Path(live.address).name, Path(made.address).name}
    assert Path(made.address).stat().st_mode & 0o077 == 0
    made.close()
    made.close()
    assert names(tmp_path) == {Path(live.address).name}
    live.close()


def test_many_threads_may_close_one_at_once(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def close(made: Sockets) -> None:
        barrier.wait()
        made.close()

    with ThreadPoolExecutor(8) as threads:
        for _ in range(50):
            made = Sockets.create(tmp_path, "test")
            for _ in threads.map(close, [made] * 8):
                pass
            assert names(tmp_path) == set()


@pytest.mark.parametrize("how", ["pass", "del s", "raise SystemError('on purpose')", "exit(3)"])
def test_no_ordinary_end_of_its_owner_leaves_it(tmp_path: Path, how: str) -> None:
    made = owner(tmp_path)
    assert len(names(tmp_path)) == 1
    made.tell(how)
    made.end()
    assert names(tmp_path) == set()


def test_a_forked_child_neither_removes_it_nor_holds_it_for_a_dead_owner(tmp_path: Path) -> None:
    made = owner(tmp_path, "child = os.fork()\nif not child: s.close(); os._exit(0)")
    made.do("os.waitpid(child, 0)[1]")
    assert len(names(tmp_path)) == 1
    sleeper = made.fork_a_sleeper()
    made.end(signal.SIGKILL)
    try:
        Sockets.create(tmp_path, "test").close()
        assert names(tmp_path) == set()
    finally:
        os.kill(sleeper, signal.SIGKILL)


def test_what_was_begun_and_not_finished_goes_when_it_is_a_minute_old(tmp_path: Path) -> None:
    for name, has_lock in ((".dpbal-test-00000001", True), (".dpbal-test-00000002", False)):
        (tmp_path / name).mkdir()
        if has_lock:
            (tmp_path / name / sockets.LOCK).touch()
    Sockets.create(tmp_path, "test").close()
    assert names(tmp_path) == {".dpbal-test-00000001", ".dpbal-test-00000002"}
    for name in names(tmp_path):
        os.utime(tmp_path / name, (OLD_S, OLD_S))
    Sockets.create(tmp_path, "test").close()
    assert names(tmp_path) == set()


def test_folders_that_nobody_locks_and_those_behind_links_stay(tmp_path: Path) -> None:
    base, elsewhere = tmp_path / "base", tmp_path / "elsewhere"
    for folder in (base, elsewhere, base / "dpbal-mine-abcdefgh", base / "dpbal-results"):
        folder.mkdir()
        os.utime(folder, (OLD_S, OLD_S))
    (elsewhere / sockets.LOCK).touch()
    (base / "dpbal-link-abcdefgh").symlink_to(elsewhere)
    before = names(base)
    Sockets.create(base, "test").close()
    assert names(base) == before
    assert names(elsewhere) == {sockets.LOCK}


def test_a_folder_that_there_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SocketError, match=r"cannot make a folder for sockets in .*No such file"):
        Sockets.create(tmp_path / "nowhere", "test")


def test_a_lock_is_for_one_object_and_its_number_stays(tmp_path: Path) -> None:
    first = Lock(tmp_path / "lock")
    assert first.number == 0
    first.number = 17
    with pytest.raises(BlockingIOError):
        Lock(tmp_path / "lock")
    first.close()
    first.close()
    second = Lock(tmp_path / "lock")
    assert second.number == 17
    second.close()
