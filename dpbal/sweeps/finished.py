"""Finds the jobs of a sweep that have a result, so that they are not run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpbal.config import Config, to_dict

RESULTS = ("result.json", "capacity.json")
"""Files that a run or a capacity search writes last; a directory that has one is complete."""

IGNORED = ("progress", "tracker")
"""Keys of a config that change no result."""


class State(Enum):
    """What lies in the directory of a job."""

    finished = "has its result"
    absent = "has no result"
    unreadable = "has a result that cannot be read"
    other_config = "has the result of another config"
    other_version = "has the result of another version of dpbal"


def find_result(directory: Path) -> Path | None:
    """The result of a run, if its directory has one."""
    return next((file for name in RESULTS if (file := directory / name).is_file()), None)


def read_result(file: Path) -> dict[str, Any]:
    """What a result holds.

    Raises:
        ValueError: If that is no result.
    """
    values = json.loads(file.read_text())
    if not isinstance(values, dict) or not isinstance(values.get("config"), dict):
        raise ValueError("it has no config")
    return values


def state_of(directory: Path, config: Callable[[], Config]) -> State:
    """What lies in the directory of a job.

    Args:
        directory: That of the job.
        config: Gives the job's config; not asked where there is nothing to compare it with.
    """
    file = find_result(directory)
    if file is None:
        return State.absent
    try:
        values = read_result(file)
        made_by = values["versions"]["dpbal"]
    except (OSError, ValueError, KeyError, TypeError):
        return State.unreadable
    if made_by != version("dpbal"):
        return State.other_version
    planned = json.loads(json.dumps(to_dict(config())))
    same = _decisive(planned) == _decisive(values["config"])
    return State.finished if same else State.other_config


def _decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in IGNORED}
