"""A sweep from its jobs to its table: skip what has a result, run the rest, put all into one."""

from __future__ import annotations

import fcntl
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dpbal.composition import Composer
from dpbal.errors import ConfigError, DpbalError, JobFailed
from dpbal.sweeps import table
from dpbal.sweeps.finished import State, find_result, state_of
from dpbal.sweeps.jobs import Job
from dpbal.sweeps.overview import show
from dpbal.sweeps.scratch import scratch
from dpbal.sweeps.watch import Watch, clock

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.plugins.launcher import Launcher
    from omegaconf import DictConfig

SUBDIR = "hydra.sweep.subdir"

MANY = 50
"""Results that take more than a moment to look at."""


class Sweep:
    """Jobs, and the directory of all of them.

    Args:
        jobs: Each with a name of its own.
        config: Hydra's, for the sweep as a whole.
        loader: Composes the configs of jobs.
    """

    def __init__(self, jobs: Sequence[Job], config: DictConfig, loader: ConfigLoader) -> None:
        if any(line.startswith(f"{SUBDIR}=") for line in config.hydra.overrides.hydra):
            raise ConfigError(
                f"{SUBDIR} is the name of a job, so that it is found again; leave it out, "
                "or type hydra/sweeper=basic"
            )
        self._config = config
        self._directory = Path(config.hydra.sweep.dir)
        self._composer = Composer(lambda lines: loader.load_sweep_config(config, lines))
        self._jobs = {self._directory / job.name: job for job in jobs}

    def run(self, launcher: Launcher) -> list[Any]:
        """Run the jobs that have no result yet.

        Returns:
            What the launcher returned for each of these.

        Raises:
            JobFailed: If some failed; the others have run all the same.
            DpbalError: If the sweep could not start or go on.
        """
        self._make_directory()
        states = self._survey()
        pending = [folder for folder, state in states.items() if state is not State.finished]
        self._announce(states)
        start_s = time.monotonic()
        returns: list[Any] = []
        if pending:
            for folder in pending:
                while (stale := find_result(folder)) is not None:
                    stale.unlink()
            self._compile()
            with scratch(self._directory):
                returns = self._launch(launcher, pending)
        frame = table.write(self._directory, self._jobs)
        failed = len(self._jobs) - len(frame)
        took = f", {len(pending) - failed} of them run in {clock(time.monotonic() - start_s)}"
        _say(
            f"{len(frame)} runs in {self._directory}{took if pending else ''}; one row a run: "
            f"{self._directory / 'runs.csv'} and runs.parquet"
        )
        show(frame)
        if failed:
            _say(f"{failed} of {len(self._jobs)} runs failed; {self._go_on()} tries them again")
            raise JobFailed
        return returns

    def _make_directory(self) -> None:
        from omegaconf import OmegaConf

        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = (self._directory / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            OmegaConf.save(self._config, self._directory / "multirun.yaml")
        except BlockingIOError:
            raise ConfigError(
                f"another sweep runs in {self._directory}; wait for it, or type hydra.sweep.dir=DIR"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"hydra.sweep.dir={self._directory} cannot be written to: {error.strerror}"
            ) from None

    def _survey(self) -> dict[Path, State]:
        there = sum(find_result(folder) is not None for folder in self._jobs)
        if there > MANY:
            _say(f"comparing the configs of {there} runs in {self._directory}")
        return {
            folder: state_of(folder, partial(self._composer.config, job.overrides))
            for folder, job in self._jobs.items()
        }

    def _announce(self, states: Mapping[Path, State]) -> None:
        counts = Counter(states.values())
        there = counts[State.finished]
        known = f", {there} there already, {len(states) - there} to go" if there else ""
        _say(f"{len(states)} runs in {self._directory}{known}")
        for folder, state in states.items():
            if state is State.unreadable:
                file = find_result(folder)
                _say(f"dpbal-run: {file} cannot be read; the run is done again", sys.stderr)
        for state in (State.other_config, State.other_version):
            if counts[state]:
                _say(f"{counts[state]} of them: {state.value}; they are run again")
        others = sum(
            folder not in states and find_result(folder) is not None
            for folder in self._directory.iterdir()
        )
        if others:
            _say(f"{others} other runs lie there too, which are not of this sweep")

    def _compile(self) -> None:
        """Compile before several workers would, each for itself."""
        if self._config.backend.name != "simulator":
            return
        from dpbal.jit import is_compiled

        if not is_compiled("engine.advance"):
            _say("compiling the simulator, once for all runs")
            from dpbal.composition import compose
            from dpbal.experiment import Experiment
            from dpbal.progress import Progress

            tiny = compose("balancer=minimum_tokens", "workload.requests=20", "compare=false")
            Experiment(tiny).run(Progress(enabled=False))

    def _launch(self, launcher: Launcher, pending: list[Path]) -> list[Any]:
        overrides = [
            [*self._jobs[folder].overrides, f"{SUBDIR}='{folder.name}'"] for folder in pending
        ]
        watch = Watch(pending, len(self._jobs) - len(pending), self._config.progress)
        try:
            with watch:
                return list(launcher.launch(overrides, initial_job_idx=0))
        except KeyboardInterrupt:
            _say(f"{self._count(watch)}; {self._go_on()} runs the others")
            raise
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise DpbalError(
                f"the launcher gave up: {type(error).__name__}: {reason}; {self._count(watch)}; "
                f"{self._go_on()} runs the others"
            ) from error

    def _count(self, watch: Watch) -> str:
        return f"{watch.finished} of {len(self._jobs)} runs are done"

    def _go_on(self) -> str:
        return f"the same command with hydra.sweep.dir={self._directory}"


def _say(line: str, file: TextIO | None = None) -> None:
    print(line, file=file, flush=True)
