"""Runs a calibration: reads, fits, says how well, and writes the profile."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from dpbal.calibration import measured
from dpbal.calibration.cli import DEFAULTS
from dpbal.calibration.deepseek import DeepSeekV3, Types
from dpbal.calibration.dense import SHAPES, Dense
from dpbal.calibration.fit import ALL, COMMON, LOCAL, PENALTY, Fit, fit
from dpbal.calibration.operators import Operators
from dpbal.calibration.profile import profile, to_yaml
from dpbal.calibration.samples import KINDS, Samples
from dpbal.calibration.tables import Tables
from dpbal.composition import compose
from dpbal.errors import ConfigError
from dpbal.modes import GroupKind
from dpbal.parts import build_step_time
from dpbal.step_time import StepTime

NO_COMMON = "guessed: no common part, ranks are whole replicas"


def run(args: argparse.Namespace, command: str) -> None:
    """Do what a command line asks for.

    Args:
        args: As ``dpbal.calibration.cli`` parses them.
        command: The whole line, for the comment above the profile.

    Raises:
        ConfigError: For anything that cannot be read or fitted.
    """
    if args.output is not None and not args.output.parent.is_dir():
        raise ConfigError(f"the folder of {args.output} does not exist")
    config = compose(*([f"profile={args.prior}"] if args.prior else []))
    prior = build_step_time(config.profile)
    prior_name = args.prior or "the default profile"
    if args.command == "steps":
        kind = GroupKind(args.kind)
        samples = measured.read(args.paths, kind, args.dilation)
        is_group = kind is GroupKind.lockstep
        names: tuple[str, ...] = ALL if is_group else (*LOCAL, PENALTY)
        source = f"{len(samples)} steps measured on engines, {kind.value} ranks"
    else:
        capacity = args.kv_capacity_tokens or prior.kv_capacity_tokens
        operators = _operators(args)
        samples = operators.samples(args.max_prefill_tokens, capacity)
        is_group = operators.ranks > 1
        names = (*LOCAL, *COMMON) if is_group else LOCAL
        source = f"{len(samples)} steps put together from operator tables of {args.engine}"
    if not is_group:
        prior = dataclasses.replace(prior, common_fixed_s=0.0, common_s_per_token=0.0)
    found = fit(samples, names, prior, is_robust=args.command == "steps")
    made = profile(
        found,
        prior,
        prior_name,
        source=source,
        model=args.model,
        device=args.device,
        kv_capacity_tokens=args.kv_capacity_tokens,
        evidence={} if is_group else dict.fromkeys(COMMON, NO_COMMON),
    )
    comment = [f"Made by: {command}", *_remarks(samples, found, prior_name)]
    text = to_yaml(made, comment)
    if args.output is None:
        print(text, end="")
    else:
        args.output.write_text(text)
    _report(samples, found, made, prior_name, sys.stderr if args.output is None else sys.stdout)


def _report(samples: Samples, found: Fit, made: StepTime, prior_name: str, out: object) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=out, highlight=False)  # type: ignore[arg-type]
    table = Table("part", "kind", "steps", "mean error", "largest", title="how far steps are off")
    for error in found.errors:
        table.add_row(
            error.part, error.kind, str(error.steps), f"{error.mean:.1%}", f"{error.largest:.1%}"
        )
    console.print(table)
    for name in found.values:
        console.print(f"{name} = {getattr(made, name):.4g}, {made.evidence[name]}", soft_wrap=True)
    for remark in _remarks(samples, found, prior_name):
        console.print(remark, soft_wrap=True)


def _remarks(samples: Samples, found: Fit, prior_name: str) -> list[str]:
    """What a reader must know before trusting the constants."""
    counts = {kind: int((samples.kinds == at).sum()) for at, kind in enumerate(KINDS)}
    remarks = ["Steps: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()) + "."]
    for kind, count in counts.items():
        if not count:
            remarks.append(f"No {kind} steps: the constants say nothing tested of such steps.")
    if not found.is_settled:
        remarks.append("The fit was stopped while its constants still moved: do not trust them.")
    for name, why in found.kept.items():
        remarks.append(f"{name} is kept from {prior_name}: {why}.")
    return remarks


def _operators(args: argparse.Namespace) -> Operators:
    is_dense = args.architecture in SHAPES
    given = vars(args)
    for name in DEFAULTS["experts" if is_dense else "dense"]:
        if given[name] is not None:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{args.architecture} has no {option}; leave it out")
    for name, default in DEFAULTS["dense" if is_dense else "experts"].items():
        if given[name] is None:
            setattr(args, name, default)
    tables = Tables(_system_folder(args.folder, args.system), args.engine)
    if is_dense:
        return Dense(tables, SHAPES[args.architecture], args.devices)
    types = Types(args.weights, args.experts, args.attention, args.cache)
    return DeepSeekV3(tables, args.ranks, types, args.distribution, args.exchange_ranks)


def _system_folder(folder: Path, system: str) -> Path:
    """The folder of a system's tables, wherever in the package the given one is."""
    below = ("", f"data/{system}", f"systems/data/{system}")
    for candidate in (folder / part for part in below):
        if candidate.name == system and candidate.is_dir():
            return candidate
    if not folder.is_dir():
        raise ConfigError(f"{folder} does not exist; give the folder of aiconfigurator_core")
    known = sorted(path.name for path in folder.glob("systems/data/*") if path.is_dir())
    raise ConfigError(
        f"no tables of system {system} in {folder}; "
        + (f"known: {', '.join(known)}" if known else "give the folder of aiconfigurator_core")
    )
