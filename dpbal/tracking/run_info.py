"""What a tracker is told of a run before it starts; worked out only as far as it asks."""

from __future__ import annotations

import subprocess
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpbal.config import COMPONENTS, Config, to_dict

if TYPE_CHECKING:
    from hydra.conf import HydraConf


class RunInfo:
    """What a run is.

    Args:
        config: What runs.
        directory: Where its files go.

    Attributes:
        directory: Where its files go.
    """

    def __init__(self, config: Config, directory: Path) -> None:
        self.directory = directory
        self._config = config

    @cached_property
    def choices(self) -> dict[str, str]:
        """The choice of every group, as typed: ``transport: gather_40``.

        Where no command line made the choice it is the component's name: ``transport: delayed``.
        """
        hydra = _hydra()
        typed = {} if hydra is None else hydra.runtime.choices
        return {
            family: str(typed.get(family) or getattr(self._config, family)["name"])
            for family in COMPONENTS
        }

    @property
    def name(self) -> str:
        """The combination and its seed: ``minimum_tokens/holding_in_flight/local/fixed seed 0``."""
        parts = [self.choices[family] for family in ("balancer", "signal", "transport", "budget")]
        return f"{'/'.join(parts)} seed {self._config.seed}"

    @property
    def group(self) -> str | None:
        """What runs that belong together share: the config's ``name``, or their sweep's folder."""
        if self._config.name is not None:
            return self._config.name
        hydra = _hydra()
        if hydra is None or not self.is_in_sweep:
            return None
        return "/".join(Path(hydra.sweep.dir).parts[-2:])  # a day's folder holds its sweeps

    @property
    def is_in_sweep(self) -> bool:
        """Whether it is one of many."""
        hydra = _hydra()
        return hydra is not None and hydra.mode is not None and hydra.mode.name == "MULTIRUN"

    @property
    def job_type(self) -> str:
        """The balancer."""
        return self.choices["balancer"]

    @property
    def tags(self) -> list[str]:
        """The workload and the backend."""
        return [self.choices["workload"], self.choices["backend"]]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config as plain values, with ``choices``, ``versions`` and ``commit``."""
        from dpbal.results import versions

        return {
            **to_dict(self._config),
            "choices": self.choices,
            "versions": versions(),
            "commit": commit(),
        }


def commit(folder: Path | None = None) -> str | None:
    """The git commit of a folder, with ``-dirty`` for changes on top; None outside a repository.

    Args:
        folder: In the repository; None is the current directory.
    """
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _hydra() -> HydraConf | None:
    """Hydra's own settings of this job, or None where no command line started it."""
    from hydra.core.hydra_config import HydraConfig

    return HydraConfig.get() if HydraConfig.initialized() else None
