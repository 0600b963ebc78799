"""Config files for the plug-in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dpbal.config import Config, Group, to_dict
from dpbal.modes import GroupKind
from tests.vllm.engine import COSTS

Serve = Callable[..., Any]
"""Does what comes before the start of a server's engines: with ``Settings``, the kind of group that
its model makes, and fields of vLLM's parallel config."""


FOLLOWING: dict[str, Any] = {
    "balancer": {"name": "marginal_prefill"},
    "signal": {"name": "sum", "terms": {"prefill_work": 1.0, "in_flight": 1.0}},
    "indexer": {"name": "kv_events"},
}
"""Nodes of a config whose front ends follow what ranks' prefix caches hold."""


def config(
    kind: GroupKind = GroupKind.independent,
    ranks: int = 2,
    dispatchers: int = 1,
    **nodes: Any,
) -> Config:
    """A config, with other ``nodes`` than ``minimum_tokens`` over shared memory where given."""
    chosen: dict[str, Any] = {
        "balancer": {"name": "minimum_tokens"},
        "signal": {"name": "sum", "terms": {"holding_tokens": 1.0, "in_flight": 1.0}},
        "indexer": {"name": "own_record"},
        "transport": {"name": "shm"},
        "budget": {"name": "fixed"},
        "workload": {"name": "none"},
        "backend": {"name": "vllm"},
        "profile": vars(COSTS),
        "tracker": {"name": "none"},
    }
    return Config(**{**chosen, **nodes}, group=Group(kind, ranks, dispatchers))


def write(path: Path, **changes: Any) -> Path:
    """Write a config into a file; see ``config``."""
    OmegaConf.save(OmegaConf.create(to_dict(config(**changes))), path)
    return path
