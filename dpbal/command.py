"""What the further commands do with mistakes: one line that names the command, and a status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from dpbal.errors import ConfigError, DpbalError

USAGE = 2
"""Exit status where something else has to be typed."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what was wrong and how to get help, and exit."""
        _fail(self.prog, f"{message}; type {self.prog} --help", USAGE)


@contextmanager
def failing_in_one_line(prog: str) -> Iterator[None]:
    """End the process with a line instead of a traceback where the user can mend the cause."""
    try:
        yield
    except KeyboardInterrupt:
        _fail(prog, "interrupted", 130)
    except (ConfigError, OSError) as error:
        _fail(prog, str(error), USAGE)
    except DpbalError as error:
        _fail(prog, str(error), 1)


def _fail(prog: str, message: str, code: int) -> NoReturn:
    print(f"{prog.split()[0]}: {message}", file=sys.stderr, flush=True)
    sys.exit(code)
