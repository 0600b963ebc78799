"""The command line of ``dpbal-bench``; every mistake in it is one line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from dpbal.command import Parser, failing_in_one_line


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark that the command line asks for."""
    args = parser().parse_args(argv)
    with failing_in_one_line("dpbal-bench"):
        from dpbal.bench import commands

        commands.run(args)


def parser() -> argparse.ArgumentParser:
    """What may be typed."""
    root = Parser(prog="dpbal-bench", description="Measures how fast dpbal itself is.")
    commands = root.add_subparsers(required=True, dest="command", metavar="COMMAND")
    _add_simulator(
        commands.add_parser(
            "simulator", help="requests/s and rank-steps/s of simulated groups at 85 %% load"
        )
    )
    _add_dispatch(
        commands.add_parser(
            "dispatch", help="microseconds of a whole dispatch, beside vLLM's formula"
        )
    )
    _add_prefix(
        commands.add_parser(
            "prefix", help="microseconds of asking what ranks hold of a prompt, and memory"
        )
    )
    _add_shm(
        commands.add_parser(
            "shm", help="microseconds of reports through shared memory, or torn reads there"
        )
    )
    _add_transport(
        commands.add_parser(
            "transport", help="what every transport costs ranks and a dispatcher, in processes"
        )
    )
    _add_vllm(
        commands.add_parser("vllm", help="microseconds that dpbal adds inside vLLM's processes")
    )
    for sub in commands.choices.values():
        sub.add_argument("--seed", type=_seed, default=0, metavar="N", help="default 0")
        sub.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    return root


def _add_simulator(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--ranks", type=_counts, metavar="N,N", help="default 8,32,128; --scale: 8")
    sub.add_argument(
        "--kind", type=_names, metavar="KIND,..", help="default both; --scale: lockstep"
    )
    sub.add_argument(
        "--balancer",
        type=_names,
        metavar="NAME,..",
        help="default round_robin,least_prefill; --scale: least_prefill",
    )
    sub.add_argument(
        "--workload",
        metavar="NAME",
        help="azure_conv (default where DPBAL_TRACES names its folder) or conv_like",
    )
    sub.add_argument("--requests", type=_counts, metavar="N,N", help="default: the whole trace")
    sub.add_argument("--profile", metavar="NAME", help="default: that of dpbal-run")
    sub.add_argument("--repeats", type=_count, metavar="N", help="default 5; --scale: 3")
    sub.add_argument(
        "--scale",
        action="store_true",
        help="10k, 100k and 1M requests like conversations, each run in a process of its own",
    )


def _add_dispatch(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--ranks", type=_counts, default=[8, 128, 1024], metavar="N,N", help="default 8,128,1024"
    )
    sub.add_argument("--balancer", type=_names, metavar="NAME,..", help="default: all")
    sub.add_argument("--repeats", type=_count, default=9, metavar="N", help="default 9")
    sub.add_argument(
        "--dispatches", type=_count, default=1000, metavar="N", help="of a repeat; default 1000"
    )


def _add_prefix(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--ranks", type=_counts, default=[8, 128], metavar="N,N", help="default 8,128")
    sub.add_argument(
        "--blocks", type=_counts, default=[100, 1000], metavar="N,N", help="default 100,1000"
    )
    sub.add_argument("--indexer", type=_names, metavar="NAME,..", help="default: all")
    sub.add_argument("--repeats", type=_count, default=9, metavar="N", help="default 9")
    sub.add_argument(
        "--rounds", type=_count, default=200, metavar="N", help="of a repeat; default 200"
    )


def _add_shm(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--ranks", type=_count, default=8, metavar="N", help="default 8")
    sub.add_argument("--repeats", type=_count, default=9, metavar="N", help="default 9")
    sub.add_argument(
        "--rounds", type=_count, default=500, metavar="N", help="of a repeat; default 500"
    )
    sub.add_argument(
        "--torn",
        type=_count,
        metavar="READS",
        help="instead, read slots so many times beside writers, with the seqlock and without it",
    )
    sub.add_argument(
        "--writers",
        type=_count,
        metavar="N",
        help="--torn: processes that write; default: cores less one",
    )


def _add_transport(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--transport", type=_names, metavar="NAME,..", help="default: all")
    sub.add_argument(
        "--ranks", type=_counts, default=[2, 8, 32, 128], metavar="N,N", help="default 2,8,32,128"
    )
    sub.add_argument("--repeats", type=_count, default=3, metavar="N", help="default 3")
    sub.add_argument(
        "--seconds",
        type=_positive,
        default=2.0,
        metavar="S",
        help="of each of the five parts of a repeat; default 2",
    )
    sub.add_argument(
        "--pace",
        type=_positive,
        default=40.0,
        metavar="N",
        help="steps/s of each rank, where the machine can follow; default 40",
    )
    sub.add_argument(
        "--timing",
        type=Path,
        metavar="FOLDER",
        help="write each transport's timing there, for dpbal-run --config-dir FOLDER",
    )


def _add_vllm(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--running", type=_count, default=256, metavar="N", help="requests of a step; default 256"
    )
    sub.add_argument("--ranks", type=_counts, default=[8, 128], metavar="N,N", help="default 8,128")
    sub.add_argument("--balancer", default="minimum_tokens", metavar="NAME")
    sub.add_argument(
        "--idle",
        type=_count,
        metavar="SECONDS",
        help="instead, look at the processor time of the first --ranks idle engines for so long",
    )
    sub.add_argument("--repeats", type=_count, default=9, metavar="N", help="default 9")
    sub.add_argument(
        "--rounds", type=_count, default=100, metavar="N", help="of a repeat; default 100"
    )


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(name for name in text.split(",") if name))
    return names or _bad(text, "names with commas between them")


def _counts(text: str) -> list[int]:
    return list(dict.fromkeys(_count(number) for number in text.split(",")))


def _count(text: str) -> int:
    return _at_least(1, text)


def _seed(text: str) -> int:
    return _at_least(0, text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    return number if 0 < number < float("inf") else _bad(text, "a number over 0")


def _at_least(least: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    return number if number >= least else _bad(text, f"a whole number from {least} up")


def _bad(text: str, wanted: str) -> NoReturn:
    raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
