"""Where Hydra looks for sweepers: hands ``hydra/sweeper=dpbal`` on to ``dpbal.sweeps``."""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class DpbalSweeper(Sweeper):
    """Runs every job of a grid or a random search that has no result yet.

    Args:
        params: Overrides that are swept, by key; what is typed takes their place.
        samples: Draws of a random search; None runs every combination.
        seed: Of the draws.
    """

    def __init__(self, params: DictConfig | None, samples: int | None, seed: int) -> None:
        self._params = params
        self._samples = samples
        self._seed = seed

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives, the launcher included."""
        from hydra.core.plugins import Plugins

        from dpbal.sweeps.worker import Worker, foreign_components

        self.hydra_context = hydra_context
        self.config = config
        task = Worker(task_function, foreign_components())
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep.

        Args:
            arguments: Overrides as typed.

        Raises:
            DpbalError: If it cannot start, or a job failed.
        """
        from dpbal.sweeps.jobs import expand
        from dpbal.sweeps.sweep import Sweep

        assert self.hydra_context is not None
        assert self.launcher is not None
        assert self.config is not None
        loader = self.hydra_context.config_loader
        jobs = expand(self._params or {}, arguments, self._samples, self._seed, loader)
        return Sweep(jobs, self.config, loader).run(self.launcher)
