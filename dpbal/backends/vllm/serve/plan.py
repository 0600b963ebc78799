"""What ``dpbal-serve`` is about to do: the combination, and the group that vLLM makes for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dpbal.backends.vllm.emulated import is_emulated_by
from dpbal.backends.vllm.hosts import group_size
from dpbal.backends.vllm.rank.scheduler import reporting
from dpbal.backends.vllm.refusals import refuse, refuse_distance
from dpbal.backends.vllm.serve.arguments import engine_config, parse
from dpbal.backends.vllm.settings import Settings
from dpbal.config import Config, Group
from dpbal.errors import ConfigError
from dpbal.modes import GroupKind

if TYPE_CHECKING:
    from argparse import Namespace

    from vllm.config import VllmConfig


@dataclass(frozen=True)
class Plan:
    """A server that nothing speaks against.

    Args:
        args: vLLM's.
        vllm_config: Of the engines.
        settings: What dpbal does in it; the group is the one that vLLM makes.
        overrides: As typed.
        words: As typed after ``--``.
    """

    args: Namespace
    vllm_config: VllmConfig
    settings: Settings
    overrides: Sequence[str]
    words: Sequence[str]

    @classmethod
    def make(cls, config: Config, overrides: Sequence[str], words: Sequence[str]) -> Plan:
        """Find out what would be started, and refuse what would go wrong, before anything is.

        Args:
            config: What the overrides compose to.
            overrides: As typed.
            words: As typed after ``--``.

        Raises:
            ConfigError: With the way out.
        """
        args = parse(list(words))
        vllm_config = engine_config(args)
        plan = cls(args, vllm_config, Settings(config), overrides, words)
        plan = replace(plan, settings=Settings(replace(config, group=plan._group(config.group))))
        plan._check()
        return plan

    @property
    def ranks(self) -> int:
        """Among which the front ends of this host choose."""
        return group_size(self.vllm_config.parallel_config)

    @property
    def is_emulated(self) -> bool:
        """Whether there are no GPUs, only the profile's step times."""
        return is_emulated_by(self.vllm_config.parallel_config.distributed_executor_backend)

    @property
    def scheduler(self) -> type:
        """The engines' scheduler.

        Raises:
            ConfigError: If it is one that does not report, or that is not there.
        """
        config = self.vllm_config.scheduler_config
        try:
            return reporting(type(config).get_scheduler_cls)(config)
        except (AttributeError, ImportError, ValueError) as error:
            raise ConfigError(f"--scheduler-cls {config.scheduler_cls}: {error}") from None

    @property
    def has_other_hosts(self) -> bool:
        """Whether front ends of this host, or of another, choose among ranks of several."""
        parallel = self.vllm_config.parallel_config
        local: int = parallel.data_parallel_size_local
        return local != parallel.data_parallel_size and not parallel.data_parallel_hybrid_lb

    @property
    def counts_guessed_seconds(self) -> bool:
        """Whether the profile matters, and is one that nobody has asked for."""
        is_typed = any(line.lstrip("+").startswith("profile") for line in self.overrides)
        return not is_typed and (self.is_emulated or self.settings.reads_profile)

    @property
    def front_ends(self) -> int:
        """API servers of this host; 0 where it has engines alone."""
        return int(self.args.api_server_count or 0)

    def is_typed(self, key: str) -> bool:
        """Whether a value of the group was asked for."""
        names = ("group=", f"group.{key}=")
        return any(line.lstrip("+").startswith(names) for line in self.overrides)

    def _group(self, given: Group) -> Group:
        """The group that vLLM makes, but for what was typed."""
        is_moe = self.vllm_config.model_config.is_moe
        if self.is_typed("ranks") and given.ranks != self.ranks:
            raise ConfigError(
                f"group.ranks={given.ranks}, but vLLM is asked for {self.ranks}; leave it out, as "
                "it follows from --data-parallel-size"
            )
        # all hosts of a group have to know of as many, and each knows only its own
        front_ends = self.vllm_config.parallel_config.data_parallel_size
        if not self.has_other_hosts:
            front_ends = max(1, self.front_ends)
        kind = GroupKind.lockstep if is_moe else GroupKind.independent
        return Group(
            given.kind if self.is_typed("kind") else kind,
            self.ranks,
            given.dispatchers if self.is_typed("dispatchers") else front_ends,
        )

    def _check(self) -> None:
        if not self.args.headless:
            refuse_distance(self.vllm_config.parallel_config.data_parallel_size_local)
        refuse(self.vllm_config, self.settings, self.is_emulated)
        self.scheduler  # noqa: B018 - raises for one that does not report
        self.settings.check()
