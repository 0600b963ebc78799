"""Starts sweeps as a user would, in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SMALL = ("workload.requests=50", "group.ranks=2", "compare=false")
SWEEP = ("-m", "balancer=round_robin,least_prefill", "seed=0,1", "hydra.sweep.dir=runs", *SMALL)
"""Four runs of next to nothing."""


COMMAND = ("-c", "from dpbal.cli import main; main()")


def start(folder: Path, *words: str, program: tuple[str, ...] = COMMAND) -> subprocess.Popen[str]:
    """Start ``dpbal-run`` as the leader of a process group."""
    return subprocess.Popen(
        [sys.executable, *program, *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"},
    )


def run(folder: Path, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``dpbal-run``."""
    with start(folder, *words) as process:
        out, error = process.communicate()
    return process.returncode, out, error


def results(folder: Path) -> dict[str, int]:
    """When each run in a folder was written, by the name of its directory."""
    return {file.parent.name: file.stat().st_mtime_ns for file in folder.glob("*/result.json")}
