"""Flow 3, config to result: build the combination, run it, compare it on the same requests."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dpbal.backends.base import Backend, Parts, Records
from dpbal.backends.simulator.simulator import Simulator
from dpbal.balancers import BALANCERS
from dpbal.config import Config
from dpbal.core import LoadTable
from dpbal.errors import ConfigError
from dpbal.loss import best_known, split, with_best_known
from dpbal.parts import build, build_dispatchers, build_step_time
from dpbal.progress import Progress
from dpbal.reference import run_pooled, saturation_rate
from dpbal.workloads.base import Requests, Workload

BASELINE = {"balancer": {"name": "round_robin"}, "budget": {"name": "fixed"}}
"""What every combination is compared with, on the same requests and engines."""


class Experiment:
    """One combination and the requests that it and its references will meet.

    Args:
        config: What to run.

    Attributes:
        backend: Where the requests run.
        requests: At the rate or load that the config asks for.

    Raises:
        DpbalError: For anything wrong with a part or the workload, before anything runs.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        build_parts(config)
        self.backend: Backend = build("backend", config.backend)
        if not BALANCERS[config.balancer["name"]].chooses and isinstance(self.backend, Simulator):
            raise ConfigError(
                f"balancer {config.balancer['name']!r} is vLLM's own choice and needs its engines; "
                "type backend=vllm, or balancer=vllm for the same rule in the simulator"
            )
        self.backend.check()
        workload: Workload = build("workload", config.workload)
        requests = workload.generate(config.seed)
        self._own_times = requests
        rate = workload.rate
        if rate is None and workload.load is not None:
            rate = workload.load * self.saturation_rate
        self.requests: Requests = requests if rate is None else requests.at_rate(rate)

    @cached_property
    def saturation_rate(self) -> float:
        """Requests a second that are a load of 1, for this very set of requests."""
        step_time = build_step_time(self.config.profile)
        ranks = self.config.group.ranks
        return saturation_rate(self._own_times, self._simulator, step_time, ranks)

    def run(self, progress: Progress) -> Records:
        """Run the combination."""
        return self._run(self.config, progress, self.backend)

    def run_baseline(self, progress: Progress) -> Records:
        """Run round robin with the engines' own token budget on the same requests."""
        config = replace(self.config, **BASELINE)  # type: ignore[arg-type]
        return self._run(config, progress, self.backend.baseline())

    def run_pooled(self) -> Records:
        """Run the pooled reference machine on the same requests."""
        step_time = build_step_time(self.config.profile)
        ranks = self.config.group.ranks
        return run_pooled(self.requests, self._simulator, step_time, ranks, self.config.seed)

    def split_loss(
        self, records: Records, pooled: Records, progress: Progress
    ) -> dict[str, Any] | None:
        """What the best known parts would remove of the loss to the pooled machine.

        All of it is simulated: in place of real engines' ``records``, a simulation of the same
        combination is compared.

        Args:
            records: What the combination did.
            pooled: What the pooled reference did.
            progress: Told of every run.

        Returns:
            ``loss`` of ``result.json``; None for a single rank, which has nothing to be balanced,
            and for a balancer or a rule for prefill that the simulator does not have.
        """
        config = self.config
        is_simulated = BALANCERS[config.balancer["name"]].chooses and self._is_plain
        if config.group.ranks == 1 or not is_simulated:
            return None

        def simulate(label: str, config: Config, engines: Simulator) -> Records:
            told = progress.track(label, len(self.requests))
            return engines.run(self.requests, build_parts(config), told)

        own = records
        if not isinstance(self.backend, Simulator):
            own = simulate("simulated", config, self._simulator)
        best = best_known(self.requests, self._simulator)
        replaced = with_best_known(config, self._simulator, best)
        runs = ((part, simulate(f"best {part}", *found)) for part, found in replaced.items())
        return split(own, pooled, runs, best, config.slo)

    @property
    def is_baseline(self) -> bool:
        """Whether the combination is itself what others are compared with."""
        names = ((getattr(self.config, key), BASELINE[key]) for key in BASELINE)
        return self._is_plain and all(own["name"] == base["name"] for own, base in names)

    @property
    def _is_plain(self) -> bool:
        """Whether the engines have no rule of their own for prefill."""
        return self.backend.baseline() == self.backend

    @property
    def _simulator(self) -> Simulator:
        return self.backend.simulator()

    def _run(self, config: Config, progress: Progress, backend: Backend) -> Records:
        told = progress.track(config.balancer["name"], len(self.requests))
        return backend.run(self.requests, build_parts(config), told)


def build_parts(config: Config) -> Parts:
    """A fresh set of parts for one run; they keep the state of that run."""
    group = config.group
    step_time = build_step_time(config.profile)
    table = LoadTable(group.ranks, group.dispatchers)
    return Parts(
        dispatchers=build_dispatchers(config, table),
        transport=build("transport", config.transport),
        budget=build("budget", config.budget),
        step_time=step_time,
        kind=group.kind,
        ranks=group.ranks,
        seed=config.seed,
    )


def run(config: Config, directory: Path, show: bool = True) -> dict[str, Any]:
    """Run a config, write its results into ``directory``, print them, and return the summary.

    Args:
        config: What to run.
        directory: Where its files go.
        show: Whether to print anything.

    Raises:
        DpbalError: For anything wrong with the config or its workload.
    """
    if config.capacity is not None:
        raise ConfigError("the config asks for a capacity search; call dpbal.find_capacity")
    from dpbal import console, results
    from dpbal.tracking.run_info import RunInfo
    from dpbal.tracking.session import follow

    (directory / "result.json").unlink(missing_ok=True)  # of a run that was here before
    with follow(config, directory) as session:
        experiment = Experiment(config)
        with Progress(config.progress and show) as progress:
            records = experiment.run(progress)
            baseline = pooled = loss = None
            if config.compare:
                baseline = records if experiment.is_baseline else experiment.run_baseline(progress)
                pooled = experiment.run_pooled()
                loss = experiment.split_loss(records, pooled, progress)
        choices = RunInfo(config, directory).choices
        summary = results.summarise(
            config, choices, experiment.requests, records, baseline, pooled, loss
        )
        results.write(directory, config, summary, records)
        if show:
            console.show(summary, directory)
        session.log(summary, records, baseline, pooled)
    return summary
