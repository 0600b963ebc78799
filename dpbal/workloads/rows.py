"""Rows of a CSV or JSONL file, checked one by one, with the line number of what is wrong."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from dpbal.errors import WorkloadError, unknown
from dpbal.workloads.lengths import MAX_TOKENS

Tokens = Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Hash = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

Row = TypeVar("Row", bound=msgspec.Struct)

_SHOWN_CHARACTERS = 80


def read_csv(path: Path, row: type[Row]) -> list[Row]:
    """Read a CSV file whose first line names the fields of ``row``, in any order.

    Columns that ``row`` does not have are skipped, or refused if it forbids unknown fields.

    Raises:
        WorkloadError: If the file cannot be read, holds no row, or a line does not fit.
    """
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            lines = csv.reader(file)
            columns = next(lines, [])
            _check_columns(path, columns, row)
            line: list[str] = []
            try:
                for line in lines:
                    if line:
                        values = dict(zip(columns, line, strict=True))
                        rows.append(msgspec.convert(values, row, strict=False))
            except (msgspec.ValidationError, csv.Error) as error:
                raise _malformed(path, lines.line_num, str(error), ",".join(line)) from None
            except ValueError:  # of zip
                expected = f"expected {len(columns)} fields ({','.join(columns)})"
                raise _malformed(path, lines.line_num, expected, ",".join(line)) from None
    except OSError as error:
        raise WorkloadError(f"cannot read {path}: {error.strerror}") from None
    if not rows:
        raise WorkloadError(f"{path} holds no request, only the line that names its columns")
    return rows


def read_jsonl(
    path: Path, row: type[Row], check: Callable[[Row], str | None] | None = None
) -> list[Row]:
    """Read a file with one JSON object a line, each with the fields of ``row``.

    Args:
        path: The file.
        row: Fields of a line; other fields are skipped, or refused if it forbids them.
        check: Says what is wrong with a row that has the right types, or None.

    Raises:
        WorkloadError: If the file cannot be read, holds no row, or a line does not fit.
    """
    rows: list[Row] = []
    decode = msgspec.json.Decoder(row).decode
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.isspace():
                    continue
                try:
                    value = decode(line)
                except msgspec.DecodeError as error:
                    raise _malformed(path, number, str(error), _text(line)) from None
                problem = check(value) if check else None
                if problem:
                    raise _malformed(path, number, problem, _text(line))
                rows.append(value)
    except OSError as error:
        raise WorkloadError(f"cannot read {path}: {error.strerror}") from None
    if not rows:
        raise WorkloadError(f"{path} is empty; it should hold one JSON object a line")
    return rows


def _check_columns(path: Path, columns: Sequence[str], row: type[Row]) -> None:
    fields = msgspec.structs.fields(row)
    names = [field.encode_name for field in fields]
    required = [field.encode_name for field in fields if field.required]
    if not columns:
        raise WorkloadError(f"{path} is empty; its first line should be {','.join(required)}")
    missing = [name for name in required if name not in columns]
    if missing:
        expected = f"the first line must name the column {missing[0]}"
        raise _malformed(path, 1, expected, ",".join(columns))
    for column in columns:
        if column in names and columns.count(column) > 1:
            raise _malformed(path, 1, f"the column {column} is named twice", ",".join(columns))
    if row.__struct_config__.forbid_unknown_fields:
        for column in columns:
            if column not in names:
                raise WorkloadError(f"{path}, line 1: {unknown('column', column, names)}")


def _malformed(path: Path, line: int, problem: str, found: str) -> WorkloadError:
    if not problem.startswith("JSON"):
        problem = problem[0].lower() + problem[1:]
    problem = problem.replace("`", "").replace(" - at $.", " at ")
    if len(found) > _SHOWN_CHARACTERS:
        found = found[:_SHOWN_CHARACTERS] + "..."
    return WorkloadError(f"{path}, line {line}: {problem}; found {found!r}")


def _text(line: bytes) -> str:
    return line.decode(errors="replace").strip()
