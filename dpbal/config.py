"""The schema of a run's config, and everything that may be wrong with one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from dpbal.errors import ConfigError, unknown
from dpbal.finite import require_finite
from dpbal.modes import GroupKind, LedgerMode

if TYPE_CHECKING:
    from omegaconf import DictConfig

COMPONENTS = (
    "balancer",
    "signal",
    "indexer",
    "transport",
    "budget",
    "workload",
    "backend",
    "tracker",
)
"""Groups of which every config names one choice."""


@dataclass
class Group:
    """The ranks, and the dispatchers in front of them.

    Args:
        kind: Whether all ranks step together.
        ranks: How many there are.
        dispatchers: Front ends, each with its own ledger.
    """

    kind: GroupKind = GroupKind.lockstep
    ranks: int = 8
    dispatchers: int = 1

    def __post_init__(self) -> None:
        _at_least_one("group.ranks", self.ranks)
        _at_least_one("group.dispatchers", self.dispatchers)


@dataclass
class LedgerConfig:
    """How in-flight load is kept.

    Args:
        mode: What a newer report does to dispatches that it does not cover.
    """

    mode: LedgerMode = LedgerMode.acknowledge


@dataclass
class Slo:
    """What makes a request good, for goodput.

    Args:
        ttft_s: Longest time to first token of an empty prompt.
        ttft_s_per_prompt_token: Seconds more for each token of the prompt.
        tpot_s: Longest mean time for each further token.
    """

    ttft_s: float = 2.0
    ttft_s_per_prompt_token: float = 0.0005
    tpot_s: float = 0.1

    def __post_init__(self) -> None:
        for name, allowed in (("ttft_s", self.ttft_s > 0), ("tpot_s", self.tpot_s > 0)):
            if not allowed:
                raise ValueError(f"slo.{name} must be positive, got {getattr(self, name)}")
        if not self.ttft_s_per_prompt_token >= 0:
            raise ValueError(
                "slo.ttft_s_per_prompt_token must not be negative, "
                f"got {self.ttft_s_per_prompt_token}"
            )


@dataclass
class Capacity:
    """A search for the highest load at which enough requests are good.

    Args:
        attainment: Share of the offered requests that must be good.
        low: Lowest load to look at.
        high: Highest load to look at.
        tolerance: How near to come, in load.
        seeds: How many sets of requests; the first has the config's own seed.
    """

    attainment: float = 0.9
    low: float = 0.05
    high: float = 1.0
    tolerance: float = 0.002
    seeds: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.attainment <= 1:
            raise ValueError(f"capacity.attainment must be in (0, 1], got {self.attainment}")
        if not 0 < self.low < self.high:
            raise ValueError(
                "capacity.low must be positive and below capacity.high, "
                f"got {self.low} and {self.high}"
            )
        if not self.tolerance > 0:
            raise ValueError(f"capacity.tolerance must be positive, got {self.tolerance}")
        _at_least_one("capacity.seeds", self.seeds)


@dataclass
class Config:
    """One run, complete: what ``conf/`` composes to.

    The components are plain values with a ``name``, except the profile, which is the constants of
    a ``StepTime``.

    Args:
        balancer: The rule that picks the rank.
        signal: The number it may rank by.
        indexer: How it knows which prefixes ranks hold, if it asks.
        transport: How load reports travel.
        budget: How much prefill a rank may do in a step.
        workload: Which requests arrive, and when.
        backend: Where they run.
        profile: Step-time constants.
        tracker: Where results go besides the run directory.
        group: The ranks.
        ledger: How in-flight load is kept.
        slo: What makes a request good.
        capacity: A search for the highest load, instead of one run; None for one run.
        seed: Of everything that is random; not negative.
        compare: Whether the same requests run on round robin and the pooled reference, and with
            parts replaced by the best known, to see where the loss goes.
        progress: Whether long runs show a bar, where there is a terminal.
        name: A name for the run in its results.
    """

    balancer: dict[str, Any] = field(default_factory=dict)
    signal: dict[str, Any] = field(default_factory=dict)
    indexer: dict[str, Any] = field(default_factory=dict)
    transport: dict[str, Any] = field(default_factory=dict)
    budget: dict[str, Any] = field(default_factory=dict)
    workload: dict[str, Any] = field(default_factory=dict)
    backend: dict[str, Any] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    tracker: dict[str, Any] = field(default_factory=dict)
    group: Group = field(default_factory=Group)
    ledger: LedgerConfig = field(default_factory=LedgerConfig)
    slo: Slo = field(default_factory=Slo)
    capacity: Capacity | None = None
    seed: int = 0
    compare: bool = True
    progress: bool = True
    name: str | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        for group in COMPONENTS:
            if "name" not in getattr(self, group):
                raise ValueError(f"no {group} is chosen; type {group}=NAME")
        if not self.profile:
            raise ValueError("no profile is chosen; type profile=NAME")


KEYS = tuple(f.name for f in dataclasses.fields(Config))
"""Top-level keys of a config."""


PLUGINS = {
    "joblib": "'dpbal[sweep]'",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
    "ray": "hydra-ray-launcher",
    "rq": "hydra-rq-launcher",
    "optuna": "hydra-optuna-sweeper",
    "ax": "hydra-ax-sweeper",
    "nevergrad": "hydra-nevergrad-sweeper",
}
"""Launchers and sweepers that Hydra knows of, and what to install for each."""


def check(cfg: DictConfig) -> Config:
    """Read a composed config into the schema.

    Raises:
        ConfigError: For an unknown key, a missing or mistyped value, or one out of range.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        _reject_unknown_keys(values, Config, "")  # type: ignore[arg-type]
        merged = OmegaConf.merge(OmegaConf.structured(Config), values)
        require_finite(OmegaConf.to_container(merged), "")
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from None
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return cast(Config, config)


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain values, to write to a file; ``check`` reads them back."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return value.name if isinstance(value, Enum) else value

    return dict(plain(dataclasses.asdict(config)))


def explain(error: Exception) -> str:
    """What Hydra, OmegaConf or YAML found wrong, as one line that names the nearest right key."""
    from omegaconf.errors import (
        ConfigAttributeError,
        ConfigKeyError,
        MissingMandatoryValue,
        OmegaConfBaseException,
    )
    from yaml import MarkedYAMLError  # type: ignore[import-untyped]

    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: not YAML: {error.problem}"
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.parent_node is not None:
        where = str(cause.full_key).rpartition(".")[0]
        siblings = [str(key) for key in cause.parent_node]
        if where == "capacity" and not siblings:
            return f"{cause.full_key}: no capacity is looked for; add experiment=capacity"
        return unknown(f"{where} key" if where else "key", str(cause.key), siblings)
    plugin = re.search(r"Could not find '(hydra/(?:launcher|sweeper))/(\w+)'", str(error))
    if plugin is not None and plugin[2] in PLUGINS:
        instead = "basic" if plugin[1] == "hydra/launcher" else "dpbal"
        return (
            f"{plugin[1]}={plugin[2]} is not installed; type pip install {PLUGINS[plugin[2]]}, "
            f"or do without it: {plugin[1]}={instead}"
        )
    if isinstance(cause, MissingMandatoryValue):
        return f"{cause.full_key} has no default; type {cause.full_key}=VALUE"
    if isinstance(cause, OmegaConfBaseException):
        reason = str(cause.msg or cause).splitlines()[0]
        return f"{cause.full_key}: {reason}" if cause.full_key else reason
    return " ".join(str(error).partition("Config search path:")[0].split())


def _reject_unknown_keys(values: Mapping[str, Any], schema: type, where: str) -> None:
    known = {f.name: f.default_factory for f in dataclasses.fields(schema)}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(unknown(f"{where} key" if where else "key", str(key), known))
        part = known[key]
        if not isinstance(part, type) or not dataclasses.is_dataclass(part):
            continue
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key} has keys of its own, got {value!r}; type {key}.KEY=VALUE")
        _reject_unknown_keys(value, part, key)


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
