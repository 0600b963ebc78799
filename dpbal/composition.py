"""From overrides to checked configs, as the command line and a script both need them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from dpbal import overrides as typed
from dpbal.config import KEYS, Config, check, explain
from dpbal.errors import ConfigError
from dpbal.parts import FAMILIES, build, build_step_time

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

PLAIN = re.compile(r"(?!hydra\b)(\w+\.[\w.]+|seed|name|compare|progress)=")
"""Overrides of one value, which choose no file."""


def compose(*overrides: str, config_dir: str | Path | None = None) -> Config:
    """The config that ``dpbal-run`` would run with these overrides.

    Args:
        overrides: As typed on the command line, such as ``"+balancer=minimum_tokens"``.
        config_dir: A folder of further configs.

    Raises:
        ConfigError: For anything that does not exist or does not fit.
    """
    (config,) = check_jobs(overrides, config_dir, is_sweep=False)
    return config


def check_jobs(
    overrides: Iterable[str], config_dir: str | Path | None, is_sweep: bool
) -> list[Config]:
    """Compose and check enough jobs that every value of every sweep is in one of them.

    Args:
        overrides: As typed.
        config_dir: A folder of further configs.
        is_sweep: Whether several values are allowed; a config may itself be a sweep.

    Raises:
        ConfigError: For anything that does not exist or does not fit.
    """
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from yaml import YAMLError  # type: ignore[import-untyped]

    lines = typed.normalise(list(overrides))
    with _loader() as loader:
        parsed = typed.parse(lines, loader)
        search = _search_path(parsed, config_dir)
        typed.reject_unknown(parsed, KEYS, loader, search)

        def load(job: list[str]) -> DictConfig:
            return hydra_compose("config", [*search, *job], return_hydra_config=True)

        try:
            first = next(typed.jobs(parsed, is_sweep=True))
            composer = Composer(load)
            saved = _saved_sweep(composer.hydra(first), is_sweep)
            if saved is not None:
                is_sweep = True
                params = typed.parse(saved, loader)
                typed.reject_unknown(params, KEYS, loader, search)
                parsed = typed.merge(params, parsed)
            touched = {o.key_or_group.partition(".")[0] for o in parsed if "." in o.key_or_group}
            configs = []
            for job in typed.jobs(parsed, is_sweep):
                config = composer.config(job)
                for family in touched.intersection(FAMILIES):
                    build(family, getattr(config, family))
                if "profile" in touched:
                    build_step_time(config.profile)
                configs.append(config)
        except (HydraException, YAMLError) as error:
            raise ConfigError(explain(error)) from None
    return configs


class Composer:
    """Composes the configs of many jobs; those that differ in plain values share the work.

    Args:
        load: Composes a config, Hydra's own node included, from overrides.
    """

    def __init__(self, load: Callable[[list[str]], DictConfig]) -> None:
        self._load = load
        self._loaded: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}

    def hydra(self, overrides: Sequence[str]) -> DictConfig:
        """Hydra's own node of a job's config.

        Raises:
            HydraException: For anything that does not exist.
        """
        return self._parts(overrides)[1]

    def config(self, overrides: Sequence[str]) -> Config:
        """The checked config of a job.

        Raises:
            ConfigError: For anything that does not fit.
            HydraException: For anything that does not exist.
        """
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        if tuple(overrides) in self._loaded:
            return check(self._parts(overrides)[0])
        plain = [line for line in overrides if PLAIN.match(line)]
        cfg = deepcopy(self._parts([line for line in overrides if line not in plain])[0])
        try:
            for override in typed.parse(plain):
                OmegaConf.update(cfg, override.key_or_group, override.value())
        except OmegaConfBaseException as error:
            raise ConfigError(explain(error)) from None
        return check(cfg)

    def _parts(self, overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
        from omegaconf import flag_override

        key = tuple(overrides)
        if key not in self._loaded:
            cfg = self._load(list(key))
            with flag_override(cfg, ["struct", "readonly"], [False, False]):
                self._loaded[key] = cfg, cfg.pop("hydra")
        return self._loaded[key]


def _saved_sweep(hydra: DictConfig, is_sweep: bool) -> list[str] | None:
    """What a config itself sweeps, as it would be typed; None where it is no sweep."""
    is_multirun = hydra.mode is not None and hydra.mode.name == "MULTIRUN"
    if not is_multirun and not is_sweep:
        return None
    samples = hydra.sweeper.get("samples")
    if samples is not None and (not isinstance(samples, int) or samples < 1):
        raise ConfigError(
            f"hydra.sweeper.samples must be a whole number of at least 1, got {samples}"
        )
    return [f"{key}={value}" for key, value in (hydra.sweeper.get("params") or {}).items()]


@contextmanager
def _loader() -> Iterator[ConfigLoader]:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    outer = GlobalHydra.instance().hydra  # a script may compose inside a run
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(typed.CONF), job_name="dpbal-run", version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = outer


def _search_path(parsed: list[Override], config_dir: str | Path | None) -> list[str]:
    folders: list[str] = []
    for override in parsed:
        value = override.value()
        if override.key_or_group == "hydra.searchpath" and isinstance(value, list):
            folders += value
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigError(f"--config-dir {config_dir}: there is no such folder")
        folders.insert(0, f"file://{Path(config_dir).resolve()}")
    quoted = ",".join("'" + folder.replace("'", r"\'") + "'" for folder in folders)
    return [f"hydra.searchpath=[{quoted}]"] if folders else []
