"""Reads what W&B wrote without a server, for tests that check what an account would be shown."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768
"""The file is a LevelDB log: blocks of this size, of pieces (checksum, length, kind) of records."""
FULL, FIRST, LAST = 1, 2, 4
PATIENCE_S = 20.0


@dataclass
class OfflineRun:
    """One record, decoded.

    Attributes:
        run: Name, group, job type, tags and so on, as W&B's message.
        config: As given.
        summary: Last value of every key.
        history: One dictionary for each time something was logged.
        exit_code: None where the run was never finished.
        tables: Of every logged table its columns and rows, by its key.
    """

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)


def read(directory: Path) -> OfflineRun:
    """The only offline run under a directory; W&B's own process may still be writing its end."""
    (file,) = directory.rglob("run-*.wandb")
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        result = decode(file)
        if result.exit_code is not None or time.monotonic() > deadline_s:
            return result
        time.sleep(0.02)


def decode(file: Path) -> OfflineRun:
    """What a record holds so far."""
    result = OfflineRun()
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            result.run = record.run
            result.config |= values(record.run.config.update)
        elif kind == "config":
            result.config |= values(record.config.update)
        elif kind == "summary":
            result.summary |= values(record.summary.update)
        elif kind == "history":
            result.history.append(values(record.history.item))
        elif kind == "exit":
            result.exit_code = record.exit.exit_code
    for entry in result.history:
        for key, value in entry.items():
            path = key.removesuffix(".path")
            if path != key and str(value).endswith(".table.json"):
                result.tables[path] = json.loads((file.parent / "files" / value).read_text())
    return result


def values(items: Any) -> dict[str, Any]:
    """Keys, joined by ``.`` where nested, and their values."""
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def records(file: Path) -> Iterator[Any]:
    """Every message in a file."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    data = file.read_bytes()
    assert data.startswith(b":W&B")
    at, parts = 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # too little left for another piece
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        piece = data[at + 7 : at + 7 + length]
        at += 7 + length
        parts = piece if kind in (FULL, FIRST) else parts + piece
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record
