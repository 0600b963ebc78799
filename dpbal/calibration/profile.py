"""Writes a fit as a profile, in the shape of those in ``conf/profile``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence

from dpbal.calibration.fit import ALL, Error, Fit
from dpbal.calibration.samples import KINDS
from dpbal.step_time import StepTime


def profile(
    fit: Fit,
    prior: StepTime,
    prior_name: str,
    *,
    source: str,
    model: str | None = None,
    device: str | None = None,
    kv_capacity_tokens: int | None = None,
    evidence: dict[str, str] | None = None,
) -> StepTime:
    """The profile that a fit makes of another.

    Args:
        fit: What was found.
        prior: What everything else is taken from.
        prior_name: Its name.
        source: Where the steps come from.
        model: The prior's if None; likewise ``device`` and ``kv_capacity_tokens``.
        device: Accelerator.
        kv_capacity_tokens: Of a rank.
        evidence: Of constants that neither the fit nor the prior gives.
    """
    kept = f"kept from {prior_name}"
    said = {name: kept for name in (*ALL, "kv_capacity_tokens")}
    said |= {name: "fitted" for name in fit.values}
    said |= {name: f"{kept}: {why}" for name, why in fit.kept.items()}
    if kv_capacity_tokens is not None:
        said["kv_capacity_tokens"] = "given"
    made = dataclasses.replace(
        prior,
        model=model or prior.model,
        device=device or prior.device,
        source=source,
        error="; ".join(f"{part}: {text}" for part, text in _parts(fit.errors).items()),
        evidence=said | (evidence or {}),
        kv_capacity_tokens=kv_capacity_tokens or prior.kv_capacity_tokens,
    )
    for name, value in fit.values.items():
        setattr(made, name, _rounded(value))
    return made


def to_yaml(step_time: StepTime, comment: Sequence[str]) -> str:
    """The file, with a comment above it."""
    lines = [f"# {line}".rstrip() for line in comment]
    for name, value in dataclasses.asdict(step_time).items():
        if name == "evidence":
            lines.append("evidence:")
            lines += [f"  {key}: {json.dumps(text)}" for key, text in value.items()]
        elif isinstance(value, str):
            lines.append(f"{name}: {json.dumps(value)}")
        elif isinstance(value, float):
            lines.append(f"{name}: {engineering(value)}")
        else:
            lines.append(f"{name}: {json.dumps(value)}")
    return "\n".join([*lines, ""])


def engineering(number: float) -> str:
    """A number with four digits, and an exponent that is a multiple of three.

    >>> engineering(0.0000504)
    '50.4e-6'
    """
    if number == 0:
        return "0.0"
    exponent = 3 * math.floor(math.log10(number) / 3 + 1e-12)
    digits = f"{number / 10**exponent:.4g}"
    return f"{digits if '.' in digits else digits + '.0'}e{exponent}"


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


def _parts(errors: Sequence[Error]) -> dict[str, str]:
    """What to say of each part of a step, kind by kind."""
    said: dict[str, list[str]] = {}
    for error in sorted(errors, key=lambda error: KINDS.index(error.kind)):
        how = f"mean {error.mean:.1%}, largest {error.largest:.1%}"
        said.setdefault(error.part, []).append(f"{how} in {error.steps} {error.kind} steps")
    return {part: ", ".join(texts) for part, texts in said.items()}
