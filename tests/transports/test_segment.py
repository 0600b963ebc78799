from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dpbal.sharedmem import LINE_BYTES, Segment, SharedMemoryError, segment, sweep
from tests.transports.processes import Process

Start = Callable[[str], Process]

IMPORTS = "import os, signal, sys; import numpy as np; from dpbal.sharedmem import Segment, segment"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own in place of the host's."""
    monkeypatch.setattr(segment, "FOLDER", tmp_path)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def in_folder(folder: Path) -> str:
    return f"{IMPORTS}; from pathlib import Path; segment.FOLDER = Path({str(folder)!r})"


def test_an_unrelated_process_finds_it_by_name_and_does_not_remove_it(start: Start) -> None:
    made = Segment.create("test", 100)
    words = made.array(np.int64, (3,), offset=8)
    words[:] = [1, 2, 3]
    other = start(f"{IMPORTS}; s = Segment.attach({made.name!r}); a = s.array(np.int64, (3,), 8)")
    assert other.do("a.tolist()") == [1, 2, 3]
    assert other.do("s.size") == 100
    other.do("a[1] = 7")
    assert words.tolist() == [1, 7, 3]
    assert other.end() == 0
    assert Segment.attach(made.name).array(np.int64, (3,), 8).tolist() == [1, 7, 3]
    made.close()


def test_it_starts_as_zeros_on_a_line_of_its_own() -> None:
    made = Segment.create("test", 1000)
    assert not made.array(np.uint8, (1000,)).any()
    assert made.address % LINE_BYTES == 0
    assert made.array(np.int64, (2,), 16).ctypes.data == made.address + 16
    made.close()


def test_a_closed_one_cannot_be_found_and_stays_with_those_who_have_it() -> None:
    made = Segment.create("test", 8)
    attached = Segment.attach(made.name)
    made.close()
    made.close()
    attached.array(np.int64, (1,))[0] = 5
    assert attached.array(np.int64, (1,)).tolist() == [5]
    with pytest.raises(SharedMemoryError, match="exists as long as the process that made it"):
        Segment.attach(made.name)


WAYS_OUT = {
    "the end of the program": "pass",
    "close": "s.close()",
    "garbage": "del s",
    "an exception": "raise SystemError('on purpose')",
    "sys.exit": "sys.exit(3)",
    "Ctrl-C": "os.kill(os.getpid(), signal.SIGINT)",
    "SIGTERM": "signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)); signal.raise_signal(15)",
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_ordinary_end_of_its_owner_leaves_it(folder: Path, start: Start, way: str) -> None:
    owner = start(f"{in_folder(folder)}; s = Segment.create('test', 8)")
    assert len(names(folder)) == 1
    owner.tell(WAYS_OUT[way])
    owner.end()
    assert names(folder) == set()


def test_the_end_of_a_forked_process_of_multiprocessing_leaves_none(folder: Path) -> None:
    made = []

    def own() -> None:
        made.append(Segment.create("test", 8))

    process = multiprocessing.get_context("fork").Process(target=own)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert names(folder) == set()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_owner_left_goes_with_the_next_one_and_nothing_else(
    folder: Path, start: Start, how: signal.Signals
) -> None:
    make = f"{in_folder(folder)}; s = Segment.create('test', 8)"
    killed, living = start(make), start(make)
    left, alive = killed.do("s.name"), living.do("s.name")
    killed.end(how)
    assert names(folder) == {left, alive}
    made = Segment.create("test", 8)
    assert names(folder) == {alive, made.name}
    made.close()


def test_the_memory_of_a_killed_owner_stays_with_those_who_have_it(
    folder: Path, start: Start
) -> None:
    owner = start(f"{in_folder(folder)}; s = Segment.create('test', 8)")
    attached = Segment.attach(owner.do("s.name"))
    attached.array(np.int64, (1,))[0] = 5
    owner.end(signal.SIGKILL)
    assert sweep() == [attached.name]
    assert attached.array(np.int64, (1,)).tolist() == [5]


def test_a_forked_child_neither_removes_it_nor_holds_it_for_a_dead_owner(
    folder: Path, start: Start
) -> None:
    owner = start(f"{in_folder(folder)}; s = Segment.create('test', 8)")
    name = owner.do("s.name")
    owner.do("child = os.fork()\nif not child: sys.exit(0)")
    owner.do("os.waitpid(child, 0)[1]")
    assert names(folder) == {name}
    sleeper = owner.fork_a_sleeper()
    assert sweep() == []
    owner.end(signal.SIGKILL)
    assert sweep() == [name]
    os.kill(sleeper, signal.SIGKILL)


def test_one_in_the_making_is_left_alone_for_a_minute(folder: Path) -> None:
    making = folder / f"dpbal-test-{os.getuid()}-1-0123456789abcdef.new"
    making.touch()
    assert sweep() == []
    os.utime(making, (0, 0))
    assert sweep() == [making.name]


@pytest.mark.parametrize(
    "name", ["dpbal-test-{}-1-0123456789abcdef", "dpbal-notes-{}.txt", "dpbal-test-{}-1-xyz"]
)
def test_files_of_another_layout_are_left_alone(folder: Path, name: str) -> None:
    other = folder / name.format(os.getuid())
    other.write_text("somebody's\n")
    assert sweep() == []
    assert other.exists()


def test_a_kind_that_no_sweep_would_know_is_refused() -> None:
    with pytest.raises(ValueError, match="small letters only, got 'step-barrier'"):
        Segment.create("step-barrier", 8)


def test_two_do_not_collide() -> None:
    one, two = Segment.create("test", 8), Segment.create("test", 8)
    one.array(np.int64, (1,))[0] = 1
    assert two.array(np.int64, (1,)).tolist() == [0]
    one.close()
    two.close()


def test_a_place_is_one_holders_until_it_closes_or_is_killed(start: Start) -> None:
    made = Segment.create("test", 8)
    other = start(f"{IMPORTS}; s = Segment.attach({made.name!r})")
    assert other.do("s.claim(0)") is True
    one, two = Segment.attach(made.name), Segment.attach(made.name)
    assert (one.claim(0), one.claim(1), two.claim(1)) == (False, True, False)
    one.close()
    assert two.claim(1)
    other.end(signal.SIGKILL)
    assert two.claim(0)
    made.close()


def test_a_missing_folder_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "FOLDER", Path("/nowhere/shm"))
    with pytest.raises(SharedMemoryError, match="there is no folder /nowhere/shm") as error:
        Segment.create("test", 8)
    assert "\n" not in str(error.value)


def test_a_folder_that_takes_no_files_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "FOLDER", Path("/proc"))
    with pytest.raises(SharedMemoryError, match="cannot make 136 bytes in /proc: "):
        Segment.create("test", 8)


def test_a_full_file_system_is_one_clear_line_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SharedMemoryError, match=r"full: 1,000,128 bytes are needed .* are free"):
        Segment.create("test", 1_000_000)
    assert names(folder) == set()


IN_SMALL_MEMORY = """
from dpbal.sharedmem import Segment, SharedMemoryError
Segment.create("test", 8)
try:
    Segment.create("test", 1_000_000)
except SharedMemoryError as error:
    print(error)
"""


def test_a_full_tmpfs_is_found_at_the_start() -> None:
    mount = 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    may_mount = shutil.which("unshare") and not subprocess.run([*inside, "true"]).returncode
    if not may_mount:
        pytest.skip("this user may mount nothing here")
    done = subprocess.run(
        [*inside, sys.executable, "-c", IN_SMALL_MEMORY], capture_output=True, text=True, check=True
    )
    (line,) = done.stdout.splitlines()
    assert line.startswith("shared memory is full: 1,000,128 bytes are needed in /dev/shm and ")
    assert "--shm-size" in line


def test_more_than_a_process_may_write_is_one_clear_line(start: Start) -> None:
    limited = start(f"{IMPORTS}; import resource; import dpbal.sharedmem as d")
    limited.do("resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))")
    limited.do(
        "try: Segment.create('test', 1_000_000)\nexcept d.SharedMemoryError as e: m = str(e)"
    )
    assert "cannot make 1,000,128 bytes in /dev/shm: File too large" in limited.do("m")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dpbal-test-1-1-0123456789abcdef", "No such file"),
        ("../etc/passwd", "is not the name of shared memory"),
        ("", "is not the name of shared memory"),
    ],
)
def test_a_name_of_nothing_is_one_clear_line(name: str, message: str) -> None:
    with pytest.raises(SharedMemoryError, match=message):
        Segment.attach(name)


def test_the_memory_of_another_version_is_refused(folder: Path) -> None:
    name = "dpbal-test-1-1-0123456789abcdef"
    (folder / name).write_bytes(b"dpbal segment 0\n".ljust(4096))
    with pytest.raises(SharedMemoryError, match="made by another version of dpbal"):
        Segment.attach(name)
