"""Sorts runs into combinations, and combinations into blocks under equal settings."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from dpbal.comparison.load import Run
from dpbal.errors import ConfigError

Flat: TypeAlias = "dict[str, Hashable]"

POLICY = ("balancer", "signal", "transport", "budget", "ledger")
"""Keys of a config that make the combination; those left are the setting it runs under."""

IGNORED = (
    "seed",
    "tracker",
    "compare",
    "progress",
    "name",
    "workload.window",
    "profile.source",
    "profile.error",
    "profile.evidence",
)
"""Keys that change no result, or that make a replicate."""


@dataclass(frozen=True)
class Combination:
    """Runs of one combination under one setting, which differ in seed or window only.

    Attributes:
        policy: Its config, flat.
        setting: What it ran under, flat.
        runs: In the order they were named.
        label: What tells it from the others of its block.
    """

    policy: Flat
    setting: Flat
    runs: list[Run] = field(default_factory=list)
    label: str = ""

    @cached_property
    def replicates(self) -> dict[str, list[Run]]:
        """Runs by what was asked of them; the same at other times is no other replicate."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.result.content_digest, []).append(run)
        return found

    @cached_property
    def requests(self) -> frozenset[str]:
        """Digests of the requests that its runs met, arrivals included."""
        return frozenset(run.result.requests_digest for run in self.runs)

    @cached_property
    def config(self) -> Flat:
        """Policy and setting, and the name that the user gave these runs, if it is one."""
        names = {run.result.config.get("name") for run in self.runs}
        return {"name": names.pop() if len(names) == 1 else None, **self.policy, **self.setting}

    @property
    def balancer(self) -> str:
        """The balancer's name, as chosen."""
        return self.choices.get("balancer", str(self.policy["balancer.name"]))

    @property
    def families(self) -> set[str]:
        """Groups of the config."""
        return {_family(key) for key in (*self.policy, *self.setting)}

    @cached_property
    def choices(self) -> dict[str, str]:
        """Which files of ``conf/`` were chosen, as far as the runs' directories tell."""
        chosen = read_choices(self.runs[0].directory)
        return {group: name for group, name in chosen.items() if group in self.families}


@dataclass(frozen=True)
class Block:
    """Combinations that are compared with each other.

    Attributes:
        label: What tells its setting from those of other blocks; empty where there is one block.
        combinations: In the order of their first runs.
    """

    label: str
    combinations: list[Combination]


def combine(runs: Iterable[Run]) -> list[Combination]:
    """Runs that differ in seed, window or name only are one combination."""
    found: dict[Hashable, Combination] = {}
    for run in runs:
        flat = flatten(run.result.config)
        policy = {key: value for key, value in flat.items() if _family(key) in POLICY}
        setting = {key: value for key, value in flat.items() if _family(key) not in POLICY}
        key = frozenset(flat.items())
        found.setdefault(key, Combination(policy, setting)).runs.append(run)
    return list(found.values())


def sides(runs: Iterable[Run]) -> Block:
    """One side for each word of the command line, whether or not the combinations are the same.

    Raises:
        ConfigError: If a word names runs of several combinations.
    """
    words: dict[str, list[Run]] = {}
    for run in runs:
        words.setdefault(run.argument, []).append(run)
    found = []
    for word, named in words.items():
        parts = combine(named)
        if len(parts) > 1:
            labels = ", ".join(part.label for part in _labelled(parts))
            raise ConfigError(
                f"--by argument: {word} holds {len(parts)} combinations: {labels}; "
                "each RUN must hold one"
            )
        found.append(replace(parts[0], label=word))
    return Block("", found)


def blocks(combinations: list[Combination], across: Iterable[str] = ()) -> list[Block]:
    """Combinations under equal settings; all together if that leaves nothing to compare.

    Args:
        combinations: All of them.
        across: Keys of the setting that are themselves compared, and so do not divide.
    """
    opened = tuple(across)
    found: dict[Hashable, list[Combination]] = {}
    for combination in combinations:
        setting = {k: v for k, v in combination.setting.items() if not _is_within(k, opened)}
        found.setdefault(frozenset(setting.items()), []).append(combination)
    groups = list(found.values())
    if all(len(group) == 1 for group in groups):
        groups = [combinations]
    settings = [{key: group[0].setting.get(key) for key in group[0].setting} for group in groups]
    titles = _distinct(settings, [group[0].choices for group in groups], [""] * len(groups))
    return [
        Block(title if len(groups) > 1 else "", _labelled(group))
        for title, group in zip(titles, groups, strict=True)
    ]


def flatten(config: Mapping[str, Any]) -> Flat:
    """A config with dotted keys, without those that make a replicate or change nothing."""
    flat: Flat = {}

    def add(values: Mapping[str, Any], prefix: str) -> None:
        for key, value in values.items():
            name = f"{prefix}{key}"
            if name in IGNORED:
                continue
            if isinstance(value, Mapping):
                add(value, f"{name}.")
            else:
                flat[name] = _frozen(value)

    add(config, "")
    return flat


def shown(value: Hashable) -> str:
    """A value as it would be typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def listed(names: Iterable[str], most: int, between: str = ", ") -> str:
    """The first names, and how many more there are."""
    told = list(names)
    more = f" and {len(told) - most} more" if len(told) > most else ""
    return between.join(told[:most]) + more


def read_choices(directory: Path) -> dict[str, str]:
    """The choice of each group, which a config alone does not hold; empty where Hydra ran not."""
    file = directory / ".hydra" / "hydra.yaml"
    if not file.is_file():
        return {}
    # a label is not worth a YAML parser's time for each of many runs
    text = file.read_text(errors="replace").partition("\n    choices:\n")[2]
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"      ([\w/]+): ([\w.+-]+)", line)
        if match is None:
            break
        if match[2] != "null":
            found[match[1]] = match[2]
    return found


def _labelled(combinations: list[Combination]) -> list[Combination]:
    starts = [str(c.config["name"] or c.balancer) for c in combinations]
    configs = [{**c.policy, **c.setting} for c in combinations]
    labels = _distinct(configs, [c.choices for c in combinations], starts)
    return [replace(c, label=label) for c, label in zip(combinations, labels, strict=True)]


def _distinct(configs: list[Flat], choices: list[dict[str, str]], starts: list[str]) -> list[str]:
    """Labels that differ, each with no more keys than it needs."""
    labels = list(starts)
    named: list[dict[str, Hashable]] = []
    for config, chosen in zip(configs, choices, strict=True):
        families = dict.fromkeys(_family(key) for key in config)
        named.append({f: chosen[f] for f in families if f in chosen} | config)
    for key in sorted({key for config in named for key in config}, key=_order):
        for label in dict.fromkeys(labels):
            alike = [i for i, other in enumerate(labels) if other == label]
            if len({named[i].get(key) for i in alike}) > 1:
                for i in alike:
                    if key in named[i]:
                        told = f"{key.removesuffix('.name')}={shown(named[i][key])}"
                        labels[i] = f"{label} {told}".strip()
    return labels


def _order(key: str) -> tuple[int, str, int, str]:
    family, _, rest = key.partition(".")
    place = POLICY.index(family) if family in POLICY else len(POLICY)
    first = ("", "name", "model", "device")
    return place, family, first.index(rest) if rest in first else len(first), rest


def _family(key: str) -> str:
    return key.partition(".")[0]


def _is_within(key: str, opened: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in opened)


def _frozen(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return tuple(sorted((str(key), _frozen(item)) for key, item in value.items()))
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    hashable: Hashable = value
    return hashable
