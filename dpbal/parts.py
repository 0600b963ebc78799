"""From the nodes of a config to the objects that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpbal.config import Config
    from dpbal.core import LoadTable
    from dpbal.dispatcher import Dispatcher
    from dpbal.indexers.base import Indexer
    from dpbal.registry import Registry
    from dpbal.step_time import StepTime

FAMILIES = {
    "balancer": "dpbal.balancers",
    "signal": "dpbal.signals",
    "indexer": "dpbal.indexers",
    "transport": "dpbal.transports",
    "budget": "dpbal.budgets",
    "workload": "dpbal.workloads",
    "backend": "dpbal.backends",
    "tracker": "dpbal.tracking",
}
"""Config groups whose choices are components, each its own schema, and the home of each."""


def registry(family: str) -> Registry[Any]:
    """The components of a family, by name."""
    found: Registry[Any] = getattr(import_module(FAMILIES[family]), f"{family.upper()}S")
    return found


def build(family: str, node: Mapping[str, Any]) -> Any:
    """Make the component that a node of the config describes.

    Raises:
        ConfigError: For an unknown name or field, or a value that does not fit it.
    """
    return registry(family).build(node["name"], {k: v for k, v in node.items() if k != "name"})


def build_dispatcher(
    config: Config,
    table: LoadTable,
    number: int,
    epoch: int = 1,
    indexer: Indexer | None = None,
) -> Dispatcher:
    """Make one dispatcher of a config's group.

    Args:
        config: The combination.
        table: Where the newest reports are.
        number: Its column in the acknowledgement table.
        epoch: Start of its process.
        indexer: The index that it shares with others; None for one of its own, if it needs one.

    Raises:
        ConfigError: For a component that cannot be made.
    """
    from dpbal.dispatcher import Dispatcher
    from dpbal.ledger import Ledger

    balancer = build("balancer", config.balancer)
    balancer.start(table.ranks, config.seed * 1009 + number)
    ledger = Ledger(table.ranks, number, epoch, config.ledger.mode)
    signal = build("signal", config.signal)
    balancer.check(signal)
    step_time = build_step_time(config.profile)
    if not balancer.uses_prefixes:
        return Dispatcher(balancer, signal, ledger, table, step_time)
    if indexer is None:
        caches = config.backend.get("prefix_cache", True)
        indexer = build("indexer", config.indexer if caches else {"name": "none"})
        capacity_tokens = config.backend.get("kv_capacity_tokens") or step_time.kv_capacity_tokens
        indexer.start(table.ranks, capacity_tokens)
    return Dispatcher(balancer, signal, ledger, table, step_time, indexer)


def build_dispatchers(config: Config, table: LoadTable) -> list[Dispatcher]:
    """Make all dispatchers of a config's group, for one process.

    Args:
        config: The combination.
        table: Where the newest reports are.

    Raises:
        ConfigError: For a component that cannot be made.
    """
    dispatchers: list[Dispatcher] = []
    for number in range(config.group.dispatchers):
        first = dispatchers[0].indexer if dispatchers else None
        shared = first if first is not None and first.is_shared else None
        dispatchers.append(build_dispatcher(config, table, number, indexer=shared))
    return dispatchers


def build_step_time(node: Mapping[str, Any]) -> StepTime:
    """Make the cost model that the profile of a config describes.

    Raises:
        ConfigError: For an unknown constant, or a value that does not fit it.
    """
    from dpbal.registry import Registry
    from dpbal.step_time import StepTime

    profiles: Registry[StepTime] = Registry("profile")
    profiles.register(str(node.get("model")))(StepTime)
    return profiles.build(str(node.get("model")), node)
