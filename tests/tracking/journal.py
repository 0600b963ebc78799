"""A tracker of a file's length, as a user would add one: it keeps a journal of lines of JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpbal.errors import ConfigError
from dpbal.tracking import Tracker
from dpbal.tracking.outcome import RunOutcome
from dpbal.tracking.run_info import RunInfo


@dataclass
class Journal(Tracker):
    """Writes what it is told.

    Args:
        file: Where to.
        fails_in: Calls that raise, for a tracker that is not well.
    """

    file: str
    fails_in: str = ""

    def check(self) -> None:
        """Refuse a file that is a folder."""
        self._fail("check")
        if Path(self.file).is_dir():
            raise ConfigError(f"tracker.file={self.file} is a folder; type a file's name")

    def start(self, run: RunInfo) -> None:
        """Write what the run is."""
        self._fail("start")
        self._write("start", [run.name, run.group, run.job_type, run.tags, run.config["seed"]])

    def log(self, outcome: RunOutcome) -> None:
        """Write its summary."""
        self._fail("log")
        self._write("log", outcome.summary)

    def finish(self, error: str | None) -> None:
        """Write how it ended."""
        self._write("finish", error)
        self._fail("finish")

    def _fail(self, call: str) -> None:
        if call in self.fails_in:
            raise RuntimeError(f"cannot {call}:\nthe disk of the journal is full")

    def _write(self, call: str, value: Any) -> None:
        with open(self.file, "a") as file:
            file.write(json.dumps([call, value]) + "\n")
