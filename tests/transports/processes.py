"""Processes that do what a test tells them, and were not started by the code under test."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

SERVE = """
import json, sys
names = {}
for line in sys.stdin:
    code = json.loads(line)
    try:
        value = eval(code, names)
    except SyntaxError:
        value = exec(code, names)
    print(json.dumps(value), flush=True)
"""


class Process:
    """An interpreter that runs a line of code at a time."""

    def __init__(self, start: str = "") -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self._popen.pid
        if start:
            self.do(start)

    def do(self, code: str) -> Any:
        """Run code there; what an expression gives."""
        self.tell(code)
        assert self._popen.stdout is not None
        answer = self._popen.stdout.readline()
        assert answer, self._popen.communicate()[1]
        return json.loads(answer)

    def tell(self, code: str) -> None:
        """Run code there that gives no answer."""
        assert self._popen.stdin is not None
        print(json.dumps(code), file=self._popen.stdin, flush=True)

    def end(self, how: signal.Signals | None = None) -> int:
        """Stop reading code, or get a signal, and end; the exit code."""
        if how is not None:
            self._popen.send_signal(how)
        self._popen.communicate(timeout=60)
        return self._popen.returncode

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None
