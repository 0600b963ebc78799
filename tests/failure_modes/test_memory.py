"""What is left in shared memory of a process that was killed, and what happens when it is full."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.failure_modes import naive_memory as naive
from tests.failure_modes.finding import finds
from tests.transports.groups import PARAMS, Case
from tests.transports.processes import ROOT, Process

OF_DPBAL = """
import tempfile
from pathlib import Path
from dpbal.sharedmem import segment
tempfile.tempdir = {folder!r}
segment.FOLDER = Path(tempfile.tempdir)
{code}
def make():
    return t.create(2, 1)
"""

OF_OTHERS = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.failure_modes.naive_memory import {name}
def make():
    return {name}(Path({folder!r}), 1000)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where shared memory and sockets go; short, as the path of a socket must be."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@finds(PARAMS, {naive.LeftForever: "2 of 2 dead servers"})
def test_f16_what_killed_servers_left_is_gone_with_the_next(
    subject: Case | type[naive.LeftForever], folder: Path, start: Callable[..., Process]
) -> None:
    modules: tuple[str, ...] = ()
    if isinstance(subject, Case):
        code, modules = OF_DPBAL.format(folder=str(folder), code=subject.code), subject.modules
    else:
        code = OF_OTHERS.format(folder=str(folder), name=subject.__name__, root=str(ROOT))
    for _ in range(2):
        owner = start(code, modules)
        owner.do("made = make()")
        owner.end(signal.SIGKILL)
    last = start(code, modules)
    last.do("made = make()")
    last.do("made.close()")
    left = [path.name for path in folder.iterdir()]
    assert left == [], f"files are left of {len(left)} of 2 dead servers"


FILLS = {
    "dpbal": """
from dpbal.sharedmem import Segment, SharedMemoryError
try:
    Segment.create("test", 1_000_000).array("u1", (1_000_000,))[:] = 1
except SharedMemoryError as error:
    print(error)
""",
    "TakenWhenWritten": """
from pathlib import Path
from tests.failure_modes.naive_memory import TakenWhenWritten
TakenWhenWritten(Path("/dev/shm"), 1_000_000).fill()
""",
}
"""In a file system of 64 kB."""


@finds({"dpbal": "dpbal"}, {naive.TakenWhenWritten: "died of signal 7"})
def test_f16_full_memory_is_one_clear_line_and_kills_nobody(subject: str | type) -> None:
    mount = 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"]).returncode:
        pytest.skip("this user may mount nothing here")
    code = FILLS[subject if isinstance(subject, str) else subject.__name__]
    command = [*inside, sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f"the process died of signal {-done.returncode}"
    assert done.stdout.startswith("shared memory is full")
