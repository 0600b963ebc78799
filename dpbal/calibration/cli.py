"""The command line of ``dpbal-calibrate``; every mistake in it is one line."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from dpbal.command import Parser, failing_in_one_line
from dpbal.modes import GroupKind

ARCHITECTURES = ("deepseek_v3", "llama31_8b", "llama31_70b")

TYPES = {
    "weights": "fp8_block",
    "experts": "fp8_block",
    "attention": "fp8_block",
    "cache": "bfloat16",
}
"""Types of numbers in DeepSeek-V3's own checkpoint, and of vLLM's KV cache."""

DEFAULTS: dict[str, dict[str, str | int | None]] = {
    "experts": {"ranks": 8, "exchange_ranks": None, "distribution": "power_law_1.01", **TYPES},
    "dense": {"devices": 1},
}
"""Options of ``tables`` that only models of one sort have."""


def main(argv: Sequence[str] | None = None) -> None:
    """Fit the profile that the command line asks for."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(given)
    with failing_in_one_line("dpbal-calibrate"):
        from dpbal.calibration import commands

        commands.run(args, f"dpbal-calibrate {shlex.join(given)}")


def parser() -> argparse.ArgumentParser:
    """What may be typed."""
    root = Parser(prog="dpbal-calibrate", description="Fits the step-time constants of a profile.")
    commands = root.add_subparsers(required=True, dest="command", metavar="COMMAND")
    steps = commands.add_parser("steps", help="from steps that engines measured")
    steps.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="csv or parquet with a row a rank and step, or the folder that DPBAL_RECORDS named",
    )
    steps.add_argument(
        "--kind",
        choices=[kind.value for kind in GroupKind],
        default=GroupKind.lockstep.value,
        help="how the ranks step; default lockstep",
    )
    steps.add_argument(
        "--dilation",
        type=_factor,
        default=1.0,
        metavar="FACTOR",
        help="of emulated engines: how many times slower than the profile their clock ran",
    )
    tables = commands.add_parser("tables", help="from tables of measured operators")
    tables.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="AIConfigurator's package (aiconfigurator_core), or systems/data/SYSTEM of it",
    )
    tables.add_argument("--system", default="h200_sxm", metavar="NAME", help="default h200_sxm")
    tables.add_argument("--engine", default="vllm", metavar="NAME", help="default vllm")
    tables.add_argument(
        "--architecture",
        choices=ARCHITECTURES,
        default=ARCHITECTURES[0],
        help=f"default {ARCHITECTURES[0]}; the others are replicas in bf16",
    )
    tables.add_argument("--devices", type=_count, metavar="N", help="of a replica; default 1")
    tables.add_argument("--ranks", type=_count, metavar="N", help="default 8")
    tables.add_argument(
        "--exchange-ranks",
        type=_count,
        metavar="N",
        help="ranks of the collectives in the table, where it has none of --ranks",
    )
    for part, default in TYPES.items():
        tables.add_argument(
            f"--{part}",
            metavar="TYPE",
            help=f"numbers of {part}, as the tables name them; default {default}",
        )
    tables.add_argument(
        "--distribution",
        metavar="NAME",
        help="how tokens choose experts, as the table names it; default power_law_1.01",
    )
    tables.add_argument(
        "--max-prefill-tokens",
        type=_count,
        default=8192,
        metavar="N",
        help="of a rank in a step; default 8192",
    )
    for sub in (steps, tables):
        sub.add_argument(
            "--prior",
            metavar="NAME",
            help="profile that gives what the fit does not; default: that of dpbal-run",
        )
        sub.add_argument("--model", metavar="TEXT", help="default: the prior's")
        sub.add_argument("--device", metavar="TEXT", help="default: the prior's")
        sub.add_argument(
            "--kv-capacity-tokens", type=_count, metavar="N", help="default: the prior's"
        )
        sub.add_argument(
            "--output", type=Path, metavar="FILE", help="the profile; default: standard output"
        )
    return root


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, got {text!r}")
    return int(text)


def _factor(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number
