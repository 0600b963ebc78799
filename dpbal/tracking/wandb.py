"""Weights & Biases, with an account or without, online or to a record on this machine."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from enum import Enum
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpbal.errors import ConfigError, MissingExtraError
from dpbal.tracking.base import TRACKERS, Tracker

if TYPE_CHECKING:
    import wandb

    from dpbal.tracking.outcome import Figure, RunOutcome, Table
    from dpbal.tracking.run_info import RunInfo
    from dpbal.tracking.series import Series

LOG = logging.getLogger(__name__)

PATIENCE_S = 60.0
"""How long a run waits for the server, at its start and at its end."""


class WandbMode(Enum):
    """Where the record goes: to the server, to a file to be synced later, or nowhere."""

    online = "online"
    offline = "offline"
    disabled = "disabled"


@TRACKERS.register("wandb")
@dataclass
class WeightsAndBiases(Tracker):
    """A W&B run for each run: config, summary, series, tables and figures.

    The series stand under ``windows/`` and are drawn over ``windows/time_s``. Of the machine and
    of the user's code nothing is recorded but the git commit.

    Args:
        project: W&B project.
        entity: W&B user or team; None is the account's default.
        mode: online, offline or disabled; None is what WANDB_MODE or ``wandb offline`` say, and
            offline where they say nothing and W&B knows no API key.
        directory: Holds the folder ``wandb`` with the records; None is the run's own directory.
        group: What runs that belong together share; None is the config's ``name``, or the sweep.
        tags: Beside the workload and the backend.
    """

    project: str = "dpbal"
    entity: str | None = None
    mode: WandbMode | None = None
    directory: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._run: wandb.Run | None = None
        self._settled_mode: str | None = None
        self._is_alone = True

    def check(self) -> None:
        """See that W&B is there, and an API key where ``mode`` is online."""
        try:
            import wandb
        except ModuleNotFoundError as error:
            if error.name != "wandb":
                raise
            wandb = None  # type: ignore[assignment]
        if not hasattr(wandb, "init"):  # a folder of records called wandb can be imported, too
            raise MissingExtraError("tracker=wandb needs the extra: pip install 'dpbal[wandb]'")
        self._settled_mode = self._settle_mode()

    def start(self, run: RunInfo) -> None:
        """Open a run of its own, whatever other W&B runs this process has."""
        import wandb

        directory = Path(self.directory) if self.directory is not None else run.directory
        directory.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            mode=self._settled_mode,  # type: ignore[arg-type]
            reinit="create_new",
            silent=True,
            console="off",
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
            init_timeout=PATIENCE_S,
            finish_timeout=PATIENCE_S,
            finish_timeout_raises=True,
        )
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            dir=directory,
            name=run.name,
            group=self.group if self.group is not None else run.group,
            job_type=run.job_type,
            tags=[*run.tags, *self.tags],
            config=run.config,
            settings=settings,
        )
        self._is_alone = not run.is_in_sweep
        if not self._run.offline and self._run.url is not None:
            LOG.info("tracked at %s", self._run.url)

    def log(self, outcome: RunOutcome) -> None:
        """Record everything."""
        run = self._run
        if run is None:
            return
        run.summary.update(outcome.summary)
        self._log_series(run, outcome.series)
        charts: dict[str, Any] = {}
        for name, table in outcome.tables.items():
            charts[f"tables/{name}"] = _table(table)
        for name, figure in outcome.figures.items():
            charts[f"figures/{name}"] = _chart(figure)
        run.log(charts)

    def finish(self, error: str | None) -> None:
        """Close the run, as failed if it has failed."""
        run, self._run = self._run, None
        if run is None:
            return
        if error is not None:
            run.summary.update({"error": error})
        run.finish(exit_code=0 if error is None else 1)
        if run.offline and self._is_alone:  # a sweep would say it hundreds of times
            LOG.info("tracked offline; to send it: wandb sync %s", relpath(Path(run.dir).parent))

    def _log_series(self, run: wandb.Run, series: Series) -> None:
        columns = {f"windows/{name}": values for name, values in series.columns().items()}
        run.define_metric("windows/time_s", summary="none")
        run.define_metric("windows/*", step_metric="windows/time_s", summary="none")
        for row in zip(*(values.tolist() for values in columns.values()), strict=True):
            named = zip(columns, row, strict=True)
            run.log({name: value for name, value in named if value == value})  # without nan

    def _settle_mode(self) -> str:
        """What to ask W&B for, so that it never stops to ask for an API key.

        Raises:
            ConfigError: If W&B rejects its own settings, or ``mode`` is online and there is no key.
        """
        import wandb

        if self.mode in (WandbMode.offline, WandbMode.disabled):
            return self.mode.name
        try:
            mode = wandb.setup().settings.mode
        except ValueError as error:
            reason = " ".join(str(error).partition("[type=")[0].split())
            raise ConfigError(f"W&B rejects its settings: {reason}; look at WANDB_*") from None
        if self.mode is None and mode != "online":
            return mode
        if wandb.login(prompt=False, verify=False):
            return "online"
        if self.mode is WandbMode.online:
            raise ConfigError(
                "tracker.mode=online needs an API key; type wandb login, or tracker.mode=offline"
            )
        return "offline"


def _table(table: Table) -> wandb.Table:
    import wandb

    return wandb.Table(columns=[*table.columns], data=table.rows)


def _chart(figure: Figure) -> Any:
    import wandb

    return wandb.plot.line_series(
        xs=[x.tolist() for x, _ in figure.lines.values()],
        ys=[y.tolist() for _, y in figure.lines.values()],
        keys=list(figure.lines),
        title=figure.title,
        xname=figure.x,
        split_table=True,
    )
