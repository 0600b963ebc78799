"""From overrides to checked configs, as the command line and a script both need them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dpbal import overrides as typed
from dpbal.config import KEYS, Config, check, explain
from dpbal.errors import ConfigError
from dpbal.parts import FAMILIES, build, build_step_time

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override


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

    Raises:
        ConfigError: For anything that does not exist or does not fit.
    """
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException

    lines = typed.normalise(list(overrides))
    with _loader() as loader:
        parsed = typed.parse(lines, loader)
        search = _search_path(parsed, config_dir)
        typed.reject_unknown(parsed, KEYS, loader, search)
        touched = {o.key_or_group.partition(".")[0] for o in parsed if "." in o.key_or_group}
        configs = []
        for job in typed.jobs(parsed, is_sweep):
            try:
                config = check(hydra_compose("config", [*search, *job]))
            except HydraException as error:
                raise ConfigError(explain(error)) from None
            for family in touched.intersection(FAMILIES):
                build(family, getattr(config, family))
            if "profile" in touched:
                build_step_time(config.profile)
            configs.append(config)
    return configs


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
