"""Runs combinations on real engines, one after the other, in a process that has loaded vLLM once.

Run as a module, in a process of its own: vLLM's engines are forked from it. Each line that it reads
is a run's directory and overrides, as JSON, and each line that it prints the mistake, or null.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

import dpbal
from dpbal.errors import DpbalError


class Runs:
    """A process that runs what it is told, for as long as the context lasts."""

    def __enter__(self) -> Self:
        """Start it."""
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", __name__],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        """End it; nothing runs in it now."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def run(self, directory: Path, *overrides: str) -> None:
        """Run a combination.

        Raises:
            RuntimeError: If it failed.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([str(directory), overrides]) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            self._errors.seek(0)
            raise RuntimeError(self._errors.read()[-3000:])
        mistake = json.loads(answer)
        if mistake is not None:
            raise RuntimeError(mistake)


def main() -> None:
    """Run what comes, until nothing comes any more."""
    for line in sys.stdin:
        directory, overrides = json.loads(line)
        mistake = None
        try:
            dpbal.run(dpbal.compose(*overrides), Path(directory), show=False)
        except DpbalError as error:
            mistake = str(error)
        print(json.dumps(mistake), flush=True)


if __name__ == "__main__":
    main()
