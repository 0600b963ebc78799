"""What dpbal is asked to do inside vLLM's processes, which learn it from their environment."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpbal.errors import ConfigError
from dpbal.modes import GroupKind

if TYPE_CHECKING:
    from dpbal.budgets import Budget
    from dpbal.config import Config
    from dpbal.indexers import Indexer
    from dpbal.step_time import StepTime
    from dpbal.transports.base import ProcessTransport

CONFIG = "DPBAL_CONFIG"
"""Turns the plug-in on: the path of a config, as any run's ``config.yaml``, or one as JSON."""

REPORTS = "DPBAL_REPORTS"
"""Address of the group's load reports; set for a host's engines by whoever starts them."""

BARRIER = "DPBAL_BARRIER"
"""Address of what emulated ranks of a lockstep group wait at; likewise."""

EVENTS = "DPBAL_EVENTS"
"""Address of what ranks' prefix caches hold; likewise, where front ends want to know it."""

DISPATCHES = "DPBAL_DISPATCHES"
"""Address at which front-end processes tell each other what they send where; likewise."""

TELEMETRY = "DPBAL_TELEMETRY"
"""Address of what ranks count for an operator; likewise, where the server has metrics."""

RECORDS = "DPBAL_RECORDS"
"""Folder that engines write their steps and requests into; they do so only where it is set."""


@dataclass(frozen=True)
class Settings:
    """A config, as the processes of a vLLM server read it.

    Args:
        config: What to run.
    """

    config: Config

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the config that ``DPBAL_CONFIG`` names or holds.

        Raises:
            ConfigError: If it does neither, or for a mistake in the config.
        """
        given = os.environ.get(CONFIG)
        if not given:
            raise ConfigError(
                f"{CONFIG} is not set; give the path of a config, such as a run's config.yaml"
            )
        return cls(parse(given, CONFIG) if given.startswith("{") else load(Path(given)))

    def to_environment(self) -> str:
        """The config as a value of ``DPBAL_CONFIG``, so that there is no file to leave behind."""
        from dpbal.config import to_dict

        return json.dumps(to_dict(self.config))

    def check(self) -> None:
        """Find mistakes before engines are started with them.

        Raises:
            ConfigError: For a component that does not exist or cannot be made.
        """
        from dpbal.core import LoadTable
        from dpbal.parts import build_dispatcher

        self.transport  # noqa: B018 - raises for one of the simulator's
        self.budget  # noqa: B018 - raises for a mistake
        self.indexer  # noqa: B018 - raises for one of the simulator's
        if not self.is_native:
            build_dispatcher(self.config, LoadTable(self.config.group.ranks), 0)

    @property
    def step_time(self) -> StepTime:
        """The profile."""
        from dpbal.parts import build_step_time

        return build_step_time(self.config.profile)

    @property
    def is_lockstep(self) -> bool:
        """Whether all ranks step together."""
        return self.config.group.kind is GroupKind.lockstep

    @property
    def is_native(self) -> bool:
        """Whether vLLM chooses the rank itself."""
        from dpbal.balancers import BALANCERS

        return not BALANCERS[self.config.balancer["name"]].chooses

    @property
    def dilation(self) -> float:
        """How many times slower than the profile emulated steps are."""
        return float(self.config.backend.get("dilation", 1.0))

    @property
    def async_scheduling(self) -> bool:
        """Whether emulated engines schedule a step ahead."""
        return bool(self.config.backend.get("async_scheduling", False))

    def dispatchers(self, processes: int) -> int:
        """Columns of the acknowledgement table, of a server with so many front-end processes."""
        return max(processes, self.config.group.dispatchers)

    @property
    def kv_capacity_tokens(self) -> int:
        """KV cache of an emulated rank."""
        given = self.config.backend.get("kv_capacity_tokens")
        return int(given or self.step_time.kv_capacity_tokens)

    @property
    def transport(self) -> ProcessTransport:
        """How reports travel.

        Raises:
            ConfigError: If the config's transport exists in the simulator only, or has ranks meet
                that step alone.
        """
        from dpbal.parts import build
        from dpbal.transports.base import ProcessTransport

        transport = build("transport", self.config.transport)
        name = self.config.transport["name"]
        if not isinstance(transport, ProcessTransport):
            raise ConfigError(
                f"transport {name!r} exists in the simulator only; "
                f"between real processes type transport={' or '.join(self._transports())}"
            )
        if transport.is_collective and not self.is_lockstep:
            raise ConfigError(
                f"transport {name!r} has all ranks meet at their steps, and the ranks of an "
                "independent group step alone; "
                f"type transport={' or '.join(self._transports())}, or group.kind=lockstep"
            )
        return transport

    def _transports(self) -> list[str]:
        """Names of those that can carry this group's reports."""
        from dpbal.transports.base import TRANSPORTS, ProcessTransport

        return [
            name
            for name, kind in TRANSPORTS.items()
            if issubclass(kind, ProcessTransport) and (self.is_lockstep or not kind.is_collective)
        ]

    @property
    def budget(self) -> Budget:
        """How much prefill a rank may do, as a rule that has not been started."""
        from dpbal.parts import build

        budget: Budget = build("budget", self.config.budget)
        return budget

    @property
    def indexer(self) -> Indexer | None:
        """How prefixes are known, as an index that has not been started; None where nobody asks.

        Raises:
            ConfigError: If the config's indexer does what exists in the simulator only.
        """
        from dpbal.indexers import INDEXERS
        from dpbal.parts import build

        if not build("balancer", self.config.balancer).uses_prefixes:
            return None
        indexer: Indexer = build("indexer", self.config.indexer)
        if indexer.in_simulator_only:
            able = [name for name, kind in INDEXERS.items() if not kind.in_simulator_only]
            raise ConfigError(
                f"indexer {self.config.indexer['name']!r} exists in the simulator only; "
                f"for real engines type indexer={' or '.join(able)}"
            )
        delay_s = getattr(indexer, "delay_s", 0.0)
        if delay_s:
            raise ConfigError(
                f"indexer.delay_s is {delay_s:g}, which the simulator adds to its events; those of "
                "real engines take the time that they take, so type indexer.delay_s=0"
            )
        return indexer

    @property
    def reads_profile(self) -> bool:
        """Whether the choice of a rank, or a limit, follows from how long the profile says."""
        from dpbal.budgets import Interval
        from dpbal.parts import build
        from dpbal.signals import Unit

        balancer = build("balancer", self.config.balancer)
        signal = build("signal", self.config.signal)
        if balancer.chooses and balancer.uses_signal and signal.counts is Unit.seconds:
            return True
        return self.limits_prefill and not isinstance(self.budget, Interval)

    @property
    def limits_prefill(self) -> bool:
        """Whether the budget has something to do in this group."""
        return self.is_lockstep and not self.budget.is_static

    @property
    def needs_events(self) -> bool:
        """Whether ranks say what their prefix caches hold."""
        from dpbal.indexers.kv_events import KvEvents

        return isinstance(self.indexer, KvEvents)


def address(variable: str) -> str:
    """An address that the processes of a server hand on.

    Raises:
        ConfigError: If it was not handed on.
    """
    found = os.environ.get(variable)
    if not found:
        raise ConfigError(
            f"{variable} is not set, so this process was not started by a vLLM server with dpbal; "
            "start the engines and front ends of a host with one command"
        )
    return found


def load(path: Path) -> Config:
    """A config from a file, checked.

    Raises:
        ConfigError: If there is no such file, or something is wrong in it.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(
            f"{CONFIG}={path} cannot be read: {error.strerror}; "
            "give the path of a config, such as a run's config.yaml"
        ) from None
    except UnicodeDecodeError:
        text = ""
    return parse(text, f"{CONFIG}={path}")


def parse(text: str, source: str) -> Config:
    """A config from YAML or JSON, checked.

    Args:
        text: All of it.
        source: Where it is from, for the beginning of a message.

    Raises:
        ConfigError: If something is wrong in it.
    """
    from omegaconf import DictConfig, OmegaConf
    from yaml import YAMLError  # type: ignore[import-untyped]

    from dpbal.config import check

    try:
        cfg = OmegaConf.create(text)
    except YAMLError:
        cfg = None
    if not isinstance(cfg, DictConfig) or not cfg:
        raise ConfigError(f"{source} is not a config of dpbal; give a run's config.yaml")
    return check(cfg)
