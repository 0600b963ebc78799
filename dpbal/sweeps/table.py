"""All results of a sweep as one table, also by ``python -m dpbal.sweeps.table DIRECTORY``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpbal.config import COMPONENTS
from dpbal.errors import ConfigError, DpbalError
from dpbal.sweeps.finished import find_result, read_result

if TYPE_CHECKING:
    import polars

CHOSEN = (*COMPONENTS, "profile")
"""Groups whose choice is a column."""

VALUES = (
    *("name", "seed", "workload.load", "workload.rate", "ledger.mode", "compare"),
    *("group.kind", "group.ranks", "group.dispatchers"),
)
"""Values of the config that are columns even if they were not typed."""


def write(directory: Path, runs: Iterable[Path]) -> polars.DataFrame:
    """Write ``runs.csv`` and ``runs.parquet`` into ``directory``, and return the table.

    Args:
        directory: That of the sweep.
        runs: Directories of the runs; those without a result are left out.

    Raises:
        ConfigError: If a result cannot be read.
    """
    import polars

    rows = [row(run) for run in runs if find_result(run) is not None]
    columns = {name: [line.get(name) for line in rows] for line in rows for name in line}
    known = {k: _alike(v) for k, v in columns.items() if any(x is not None for x in v)}
    frame = polars.DataFrame(known)
    for name, save in (("runs.parquet", frame.write_parquet), ("runs.csv", frame.write_csv)):
        partial = directory / f"{name}.partial"
        save(partial)
        partial.replace(directory / name)
    return frame


def row(run: Path) -> dict[str, Any]:
    """One run: its directory, its choices, its values, and every number of its result.

    Raises:
        ConfigError: If its result cannot be read.
    """
    file = find_result(run)
    if file is None:
        raise ConfigError(f"{run} has no result")
    try:
        result = read_result(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    config = _flat(result.pop("config"))
    result.pop("choices", None)  # Hydra's file knows more of them
    choices = _choices(run)
    names = {f: config.get(f"{f}.name", config.get(f"{f}.model")) for f in CHOSEN}
    version = result.pop("versions", {}).get("dpbal")
    result.pop("seed", None)
    return {
        "run": run.name,
        **{family: choices.get(family) or names[family] for family in CHOSEN},
        **{key: config.get(key) for key in (*VALUES, *_typed_keys(run)) if key in config},
        **_flat(result),
        "version": version,
    }


def _choices(run: Path) -> dict[str, str | None]:
    """The file of each group that was chosen, which a config alone does not tell."""
    saved = _hydra(run, "hydra.yaml")
    choices: dict[str, str | None] = saved["hydra"]["runtime"]["choices"] if saved else {}
    return choices


def _typed_keys(run: Path) -> list[str]:
    """Keys of single values that were typed or swept, in the order of the alphabet."""
    typed = _hydra(run, "overrides.yaml") or []
    keys = [re.sub(r"^[+~]+", "", line).partition("=")[0] for line in typed]
    return sorted(key for key in keys if "." in key)


def _hydra(run: Path, name: str) -> Any:
    """A file that Hydra left, or None; read with the fast loader, as there are many."""
    from msgspec import DecodeError, yaml

    try:
        return yaml.decode((run / ".hydra" / name).read_bytes())
    except (OSError, DecodeError):
        return None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted names; lists as JSON, and none for lists of records."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            flat[prefix + key] = value
        elif not any(isinstance(item, Mapping) for item in value):
            flat[prefix + key] = json.dumps(value)
    return flat


def _alike(values: Sequence[Any]) -> list[Any]:
    """Values of one column, of one type."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) < 2:
        return list(values)
    kind = float if kinds <= {int, float} else str
    return [None if value is None else kind(value) for value in values]


def main() -> None:
    """Write the tables of the sweep that the command line names."""
    try:
        if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
            raise ConfigError("type python -m dpbal.sweeps.table and the directory of a sweep")
        directory = Path(sys.argv[1])
        runs = sorted(path for path in directory.iterdir() if find_result(path) is not None)
        if not runs:
            raise ConfigError(f"{directory} holds no run that has a result")
        write(directory, runs)
        print(f"{len(runs)} runs in {directory / 'runs.csv'} and runs.parquet")
    except DpbalError as error:
        sys.exit(f"dpbal.sweeps.table: {error}")


if __name__ == "__main__":
    main()
