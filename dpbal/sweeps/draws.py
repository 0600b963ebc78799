"""The random search: values drawn from what is swept, the same for the same seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from dpbal.errors import ConfigError
from dpbal.overrides import discrete_values

if TYPE_CHECKING:
    from hydra.core.override_parser.types import IntervalSweep, Override

DIGITS = 4
"""Of a number drawn from an interval: more would only make it hard to type again."""

PATIENCE = 100
"""Draws in a row that may repeat earlier ones before all there are count as drawn."""


def draw(overrides: Mapping[str, Override], samples: int, seed: int) -> list[dict[str, str]]:
    """Different draws of one value for each key; each is ``key: "key=value"``.

    Every key has its own stream of random numbers, and draws come one after another: with other
    ``samples`` the first draws are the same, and so are the values of a key whatever other keys do,
    as far as no draw repeats an earlier one.

    Args:
        overrides: What is drawn from, by key: choices and ranges uniformly, intervals uniformly or,
            tagged ``log``, uniformly in the logarithm.
        samples: How many; fewer come back where there are no more.
        seed: Of the draws.

    Raises:
        ConfigError: For no samples, or an interval that cannot be drawn from.
    """
    if samples < 1:
        raise ConfigError(f"hydra.sweeper.samples must be at least 1, got {samples}")
    streams = {key: Random(f"{seed} {key}") for key in overrides}
    found: dict[tuple[str, ...], dict[str, str]] = {}
    misses = 0
    while len(found) < samples and misses < PATIENCE:
        one = {key: _draw(override, streams[key]) for key, override in overrides.items()}
        before = len(found)
        found.setdefault(tuple(one.values()), one)
        misses = 0 if len(found) > before else misses + 1
    return list(found.values())


def _draw(override: Override, stream: Random) -> str:
    if not override.is_interval_sweep():
        return stream.choice(discrete_values(override))
    interval: IntervalSweep = override.value()  # type: ignore[assignment]
    return f"{override.get_key_element()}={_between(interval, override, stream)}"


def _between(interval: IntervalSweep, override: Override, stream: Random) -> float:
    low, high = interval.start, interval.end
    is_log = "log" in interval.tags
    if low is None or high is None or not low < high or (is_log and low <= 0):
        needed = "0 < low < high" if is_log else "low < high"
        raise ConfigError(f"{override.input_line}: nothing lies there; type {needed}")
    if is_log:
        value = math.exp(stream.uniform(math.log(low), math.log(high)))
    else:
        value = stream.uniform(low, high)
    if isinstance(low, int) and isinstance(high, int):
        return min(math.floor(value), high - 1)
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)
