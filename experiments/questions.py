"""The command of a study that answers several questions, each with a table of its own."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import polars


def main(
    purpose: str,
    folder: Path,
    questions: Iterable[str],
    answer: Callable[[str, ProcessPoolExecutor], polars.DataFrame],
    text: Callable[[str, polars.DataFrame], str],
    needs_traces: bool = True,
) -> None:
    """Run the questions and write ``QUESTION.csv`` and ``results.md``.

    Args:
        purpose: Of the study, for ``--help``.
        folder: Where the files go, unless ``--out`` says otherwise.
        questions: By name, in the order in which they are shown.
        answer: Runs all that a question asks for.
        text: Makes Markdown of an answer.
        needs_traces: Whether a question is asked of a trace.
    """
    parser = argparse.ArgumentParser(description=purpose.splitlines()[0])
    parser.add_argument("--only", choices=sorted(questions), action="append")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    parser.add_argument("--out", type=Path, default=folder)
    args = parser.parse_args()
    if needs_traces and "DPBAL_TRACES" not in os.environ:
        parser.error("set DPBAL_TRACES to the folder that holds the traces")
    if args.jobs < 1:
        parser.error(f"--jobs is {args.jobs}, and must be at least 1")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # before the work, as rows that cannot be written are lost
        parser.error(f"--out: no folder can be made at {args.out}: {error.strerror}")
    with ProcessPoolExecutor(args.jobs) as pool:
        for question in args.only or questions:
            rows = answer(question, pool)
            rows.write_csv(args.out / f"{question}.csv")
            print(f"{question}: {len(rows)} runs, {rows['lost'].sum()} requests lost", flush=True)
    (args.out / "results.md").write_text(report(args.out, questions, text))


def report(
    folder: Path, questions: Iterable[str], text: Callable[[str, polars.DataFrame], str]
) -> str:
    """Markdown of the answers that a folder holds, and of what real engines did."""
    files = {question: folder / f"{question}.csv" for question in questions}
    texts = [
        text(question, polars.read_csv(file, infer_schema_length=None))
        for question, file in files.items()
        if file.exists()
    ]
    engines = folder / "engines.md"
    if engines.exists():
        texts.append(engines.read_text())
    return "\n".join(texts)
