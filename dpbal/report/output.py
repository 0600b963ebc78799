"""Where a page or a trace goes: never over a file of a run, and whole or not at all."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dpbal.errors import ConfigError

OF_RUNS = (
    "result.json",
    "capacity.json",
    "dpbal-run.log",
    "runs.csv",
    "*.parquet",
    "*.yaml",
)
"""Names of what runs, searches and sweeps leave."""


def target(given: str | None, folder: Path, name: str, option: str) -> Path:
    """Where a file is to go.

    Args:
        given: What was typed, if anything.
        folder: Of the runs, where it goes otherwise.
        name: Of the file there.
        option: With which another place is typed.

    Raises:
        ConfigError: If there are no runs, or the file is a folder, in a folder that is not there,
            or named like a file of a run.
    """
    if not given and not folder.exists() and not glob.has_magic(str(folder)):
        raise ConfigError(f"there is no run {folder}; name a run directory, a multirun or a glob")
    out = Path(given) if given else (folder if folder.is_dir() else folder.parent) / name
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; name a file, such as {out / name}")
    if any(out.resolve().match(pattern) for pattern in OF_RUNS):
        raise ConfigError(
            f"{out.name} is the name of a file of a run; type {option} FILE with another, such as"
            f" {name}"
        )
    if not out.absolute().parent.is_dir():
        raise ConfigError(
            f"{out}: there is no folder {out.parent}; type {option} FILE with another"
        )
    return out


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of what is there once it is whole.

    Where the body fails, what was there before stays as it is. A pipe or a device is written to
    directly.

    Raises:
        ConfigError: Before the body runs, if nothing can be written there.
    """
    is_special = path.exists() and not path.is_file()
    whole = path if is_special else path.resolve()  # a link stays one
    partial = whole if is_special else whole.with_name(f"{whole.name}.partial")
    try:
        file = partial.open("wb")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written to ({error.strerror}); name a file elsewhere, with --out"
            " or --trace"
        ) from None
    try:
        with file:
            yield file
        if not is_special:
            partial.replace(whole)
    except BaseException:
        if not is_special:
            partial.unlink(missing_ok=True)
        raise


def printable(path: Path) -> str:
    """A path for standard output, which not every name of a file can be written to."""
    return os.fsencode(path).decode("utf-8", "replace")
