"""The command ``dpbal-compare``; every mistake in its command line is one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpbal.command import Parser, failing_in_one_line
from dpbal.comparison.modes import By, Correction
from dpbal.errors import ConfigError

if TYPE_CHECKING:
    from dpbal.comparison.comparison import Comparison

STDOUT = "-"


def main(argv: Sequence[str] | None = None) -> None:
    """Compare the runs that the command line names."""
    args = parser().parse_args(argv)
    with failing_in_one_line("dpbal-compare"):
        _check_outputs(args)
        from dpbal.comparison.comparison import compare

        _write(
            args,
            compare(
                args.runs,
                baseline=args.baseline,
                level=args.level,
                metrics=args.metrics,
                correct=args.correct,
                by=args.by,
            ),
        )


def parser() -> argparse.ArgumentParser:
    """What may be typed."""
    root = Parser(
        prog="dpbal-compare",
        description="Compares finished runs, paired where they met the same requests.",
    )
    root.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run directory, a multirun or other directory of runs, a glob, or a result.json",
    )
    root.add_argument(
        "--baseline",
        metavar="NAME",
        help="what the others are compared with: a combination, a balancer, or "
        "key=value,key=value; default round_robin, or else the first",
    )
    root.add_argument("--level", type=float, default=0.95, metavar="P", help="default 0.95")
    root.add_argument(
        "--metrics", type=_names, metavar="NAME,..", help="default: those that dpbal-run prints"
    )
    root.add_argument(
        "--correct",
        choices=[mode.value for mode in Correction],
        default=Correction.holm.value,
        help="over what verdicts are corrected: the metrics of a combination (holm, default), "
        "also all combinations of a setting (holm-all), or nothing (none)",
    )
    root.add_argument(
        "--by",
        choices=[mode.value for mode in By],
        default=By.combination.value,
        help="what one side is: a combination (default), or all that one RUN names",
    )
    for name in ("markdown", "csv"):
        root.add_argument(
            f"--{name}", metavar="FILE", help=f"write {name} there; - is standard output"
        )
    return root


def _check_outputs(args: argparse.Namespace) -> None:
    if args.markdown == args.csv == STDOUT:
        raise ConfigError("--markdown - and --csv - exclude each other; write one to a file")
    for option, target in (("--markdown", args.markdown), ("--csv", args.csv)):
        if target not in (None, STDOUT) and not Path(target).absolute().parent.is_dir():
            raise ConfigError(f"{option} {target}: there is no folder {Path(target).parent}")


def _write(args: argparse.Namespace, comparison: Comparison) -> None:
    from dpbal.comparison import formats

    makers = ((args.markdown, formats.markdown), (args.csv, formats.to_csv))
    for target, make in makers:
        if target == STDOUT:
            sys.stdout.write(make(comparison))
        elif target is not None:
            Path(target).write_text(make(comparison))
    if STDOUT not in (args.markdown, args.csv):
        formats.show(comparison)
    elif args.csv == STDOUT:
        for line in comparison.warnings:
            print(f"dpbal-compare: warning: {line}", file=sys.stderr)


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]
