"""What each command of ``dpbal-bench`` does: check, measure, print, write."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dpbal.balancers import BALANCERS
from dpbal.bench import (
    dispatch,
    machine,
    prefix,
    scale,
    shm,
    simulator,
    tables,
    timing,
    torn,
    traffic,
    transport,
    vllm,
)
from dpbal.bench.transport_case import Case
from dpbal.errors import ConfigError, unknown
from dpbal.modes import GroupKind
from dpbal.parts import build

WORKLOADS = ("azure_conv", "conv_like")

MOST_RANKS = 65_536
"""vLLM's identities of engines are two bytes."""


@dataclass(frozen=True)
class Measured:
    """What a command found: dataclasses, and how it was asked."""

    settings: dict[str, Any]
    rows: Sequence[Any]


def run(args: argparse.Namespace) -> None:
    """Measure, print, and write the JSON file if one is asked for.

    Raises:
        DpbalError: For anything that does not exist or does not fit.
    """
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise ConfigError(f"--json {args.json}: there is no folder {args.json.parent}")
    before = machine.load()
    tables.say(f"before: {before}")
    commands = {
        "simulator": run_simulator,
        "dispatch": run_dispatch,
        "prefix": run_prefix,
        "shm": run_shm,
        "transport": run_transport,
        "vllm": run_vllm,
    }
    measured = commands[args.command](args)
    after = machine.load()
    tables.say(f"after: {after}")
    if args.json is None:
        return
    report = {
        "command": args.command,
        "settings": {"seed": args.seed, **measured.settings},
        "machine": machine.describe(before, after),
        "rows": [asdict(row) for row in measured.rows],
    }
    args.json.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")


def run_simulator(args: argparse.Namespace) -> Measured:
    """Measure the simulator, or with ``--scale`` how it grows with the number of requests."""
    cases = _scale_cases(args) if args.scale else _cases(args)
    # what could still be wrong is the same for all, and compiling would be a long wait for it
    build("workload", cases[0].config().workload).generate(args.seed)
    repeats = args.repeats or (3 if args.scale else 5)
    settings = {
        "scale": args.scale,
        "load": simulator.LOAD,
        "profile": args.profile,
        "repeats": repeats,
    }
    if args.scale:
        tables.say("each run is a process of its own; compiling is apart")
        scaled = scale.measure(cases, repeats)
        tables.scale(scaled)
        return Measured(settings, scaled)
    compile_s = simulator.compile_all(cases)
    tables.say(
        f"apart from what follows: {compile_s:.1f} s to compile, or to load what was compiled; "
        "no files are written"
    )
    rows = simulator.measure(cases, repeats, args.seed)
    tables.simulator(rows)
    return Measured({**settings, "compile_s": compile_s}, rows)


def run_dispatch(args: argparse.Namespace) -> Measured:
    """Measure a dispatch of every balancer."""
    names = args.balancer or _balancers()
    _check("balancer", names, _balancers())
    if max(args.ranks) > MOST_RANKS:
        raise ConfigError(f"--ranks may be up to {MOST_RANKS} here, got {max(args.ranks)}")
    timer_us = dispatch.timer_us()
    rows = dispatch.measure(names, args.ranks, args.repeats, args.dispatches, args.seed)
    tables.dispatch(rows, timer_us)
    settings = {
        "repeats": args.repeats,
        "dispatches": args.dispatches,
        "timer_us": timer_us,
        "traffic": traffic.DESCRIPTION,
    }
    return Measured(settings, rows)


def run_prefix(args: argparse.Namespace) -> Measured:
    """Measure every index of prefix blocks."""
    names = args.indexer or prefix.NAMES
    _check("indexer", names, prefix.NAMES)
    tables.say(prefix.DESCRIPTION)
    rows = prefix.measure(names, args.ranks, args.blocks, args.repeats, args.rounds, args.seed)
    tables.prefix(rows)
    return Measured({"repeats": args.repeats, "rounds": args.rounds}, rows)


def run_shm(args: argparse.Namespace) -> Measured:
    """Measure reports through shared memory, or with ``--torn`` count torn reads."""
    if args.torn is None:
        tables.say(shm.DESCRIPTION)
        rows = shm.measure(args.ranks, args.repeats, args.rounds)
        tables.shm(rows)
        return Measured({"repeats": args.repeats, "rounds": args.rounds}, rows)
    writers = args.writers or max(1, machine.load().cores - 1)
    counted = [torn.count(args.torn, writers, seqlock) for seqlock in (True, False)]
    tables.torn(counted)
    return Measured({"reads": args.torn}, counted)


def run_transport(args: argparse.Namespace) -> Measured:
    """Measure every transport, and write their timing where ``--timing`` says."""
    names = args.transport or list(transport.SUBJECTS)
    _check("transport", names, transport.SUBJECTS)
    transport.check(names, args.ranks)
    load = machine.load()
    each_s = transport.START_S + args.repeats * transport.PARTS * args.seconds
    minutes = len(args.ranks) * len(names) * each_s / 60
    tables.say(transport.DESCRIPTION, f"this takes about {minutes:.0f} minutes")
    rows: list[transport.TransportRow] = []
    for ranks in args.ranks:
        case = Case((), ranks, args.repeats, args.seconds, args.pace, args.seed)
        of_ranks = transport.measure_all(names, case)
        tables.transport(of_ranks, transport.ratios(of_ranks))
        rows += of_ranks
        if args.timing is not None:
            for file in timing.write(args.timing, of_ranks, load):
                take = f"dpbal-run --config-dir {args.timing} transport={file.stem}"
                tables.say(f"wrote {file}; {take}")
    settings = {"repeats": args.repeats, "seconds": args.seconds, "steps_per_s": args.pace}
    return Measured(settings, rows)


def run_vllm(args: argparse.Namespace) -> Measured:
    """Measure what dpbal adds inside vLLM, or with ``--idle`` what idle engines use."""
    if args.idle is not None:
        vllm.require()
        from dpbal.bench import idle

        shares = idle.measure(args.ranks[0], args.idle, args.repeats)
        tables.idle(shares)
        return Measured({"seconds": args.idle, "repeats": args.repeats}, shares)
    tables.say(vllm.DESCRIPTION)
    rows = vllm.measure(args.running, args.ranks, args.balancer, args.repeats, args.rounds)
    tables.vllm(rows)
    settings = {"balancer": args.balancer, "repeats": args.repeats, "rounds": args.rounds}
    return Measured(settings, rows)


def _cases(args: argparse.Namespace) -> list[simulator.Case]:
    workload = args.workload or simulator.default_workload()
    if args.workload is None and workload == "conv_like":
        tables.say("DPBAL_TRACES is not set, so this is conv_like and not the Azure trace")
    kinds = args.kind or [kind.value for kind in GroupKind]
    balancers = args.balancer or ["round_robin", "least_prefill"]
    _check_choices(workload, kinds, balancers)
    return simulator.cases(
        workload,
        kinds,
        args.ranks or [8, 32, 128],
        balancers,
        args.requests or [None],
        args.profile,
        args.seed,
    )


def _scale_cases(args: argparse.Namespace) -> list[simulator.Case]:
    workload = args.workload or "conv_like"
    kinds = args.kind or ["lockstep"]
    balancers = args.balancer or ["least_prefill"]
    _check_choices(workload, kinds, balancers)
    if workload != "conv_like":
        raise ConfigError(f"--scale takes more requests than {workload} has; drop --workload")
    return simulator.cases(
        workload,
        kinds,
        args.ranks or [8],
        balancers,
        args.requests or scale.REQUESTS,
        args.profile,
        args.seed,
    )


def _check_choices(workload: str, kinds: Sequence[str], balancers: Sequence[str]) -> None:
    _check("workload", [workload], WORKLOADS)
    _check("kind", kinds, [kind.value for kind in GroupKind])
    _check("balancer", balancers, _balancers())


def _balancers() -> list[str]:
    """Those that can be timed: they choose themselves."""
    return [name for name, cls in BALANCERS.items() if cls.chooses]


def _check(what: str, given: Sequence[str], known: Iterable[str]) -> None:
    for name in given:
        if name not in known:
            raise ConfigError(unknown(what, name, known))
