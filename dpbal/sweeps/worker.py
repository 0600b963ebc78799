"""What a job needs in a process of its own: the components that are not dpbal's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpbal.parts import FAMILIES, registry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Worker:
    """A job as launchers send it to other processes, with the components registered here.

    A class of a module arrives by importing that module; one of the script itself arrives whole.

    Args:
        task: Runs a job.
        components: Family, name and class of each.
    """

    task: Callable[[DictConfig], Any]
    components: list[tuple[str, str, type]]

    def __call__(self, cfg: DictConfig) -> Any:
        """Run a job, wherever this is."""
        for family, name, cls in self.components:
            known = registry(family)
            if name not in known:
                known.register(name)(cls)
        return self.task(cfg)


def foreign_components() -> list[tuple[str, str, type]]:
    """Components that other packages and scripts have registered in this process."""
    return [
        (family, name, cls)
        for family in FAMILIES
        for name, cls in registry(family).items()
        if cls.__module__.partition(".")[0] != "dpbal"
    ]
