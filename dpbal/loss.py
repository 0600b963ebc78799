"""Where the loss to the pooled reference goes: one part after another replaced by the best known.

The best known parts are rules like any other and no bounds, so that a share may be negative or over
1, and the shares need not add up: parts make up for one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dpbal.config import Config, LedgerConfig, Slo
from dpbal.metrics import is_unstable, summarise
from dpbal.modes import GroupKind, LedgerMode
from dpbal.results import CLOSED, gap_closed

if TYPE_CHECKING:
    from dpbal.backends.base import Records
    from dpbal.backends.simulator.simulator import Simulator
    from dpbal.workloads.base import Requests

ALL = "all"
"""All parts at once."""

PREFILL = {"prefill_work": 1.0, "in_flight": 1.0}
"""Seconds of prefill, reported and in flight: what the best known placements rank by."""

PLAIN: dict[str, Any] = {
    "balancer": {"name": "least_prefill"},
    "signal": {"name": "sum", "terms": {**PREFILL, "decode_work": 0.001}},
    "transport": {"name": "local"},
    "ledger": LedgerConfig(LedgerMode.acknowledge),
}
"""The best known placement where ranks find nothing of a prompt in their caches."""

BY_PREFIX: dict[str, Any] = {
    **PLAIN,
    "balancer": {"name": "marginal_prefill"},
    "signal": {"name": "sum", "terms": {**PREFILL, "decode_load": 200.0}},
    "indexer": {"name": "own_record"},
}
"""The best known placement where they may."""

BUDGET: dict[str, Any] = {"budget": {"name": "level"}}
FRESH: dict[str, Any] = {"transport": {"name": "local"}}
"""No delay; it also takes the lag from the budget's vectors."""

BestKnown = Mapping[str, Mapping[str, Any]]
"""What each part puts into the config."""


def best_known(requests: Requests, engines: Simulator) -> BestKnown:
    """The best known of each part, for these requests on these engines.

    Args:
        requests: Those that will run; only with prefix hashes can there be hits.
        engines: Where they run; only with a prefix cache can there be hits.
    """
    finds_prefixes = requests.has_hashes and engines.prefix_cache
    placement = BY_PREFIX if finds_prefixes else PLAIN
    return {"placement": placement, "budget": BUDGET, "staleness": FRESH}


def with_best_known(
    config: Config, engines: Simulator, best: BestKnown
) -> dict[str, tuple[Config, Simulator]]:
    """The combination with each part, and then with all parts, replaced by the best known.

    Args:
        config: The combination.
        engines: Where it runs.
        best: The best known of each part.

    Returns:
        A config and the engines for it, by part; no budget in an independent group, where the best
        known one does nothing.
    """
    is_lockstep = config.group.kind is GroupKind.lockstep
    parts = [part for part in best if is_lockstep or part != "budget"]
    replaced = {part: best[part] for part in parts}
    replaced[ALL] = {key: node for part in parts for key, node in best[part].items()}
    without_lag = replace(engines, vector_lag=0)
    return {
        part: (replace(config, **nodes), without_lag if part in ("staleness", ALL) else engines)
        for part, nodes in replaced.items()
    }


def split(
    own: Records,
    pooled: Records,
    replaced: Iterable[tuple[str, Records]],
    best: BestKnown,
    slo: Slo,
) -> dict[str, Any]:
    """``loss`` of ``result.json``.

    Args:
        own: What the combination did.
        pooled: What the pooled reference did.
        replaced: What it did with each part of ``with_best_known``; asked for one by one.
        best: The best known of each part, to say its name.
        slo: What makes a request good.
    """
    mine, least = summarise(own, slo), summarise(pooled, slo)
    is_shaky = is_unstable(own)
    result: dict[str, Any] = {
        "best_known": {
            "placement": best["placement"]["balancer"]["name"],
            "budget": best["budget"]["budget"]["name"],
            "staleness": "no delay",
        },
        "lost_s": {name: _difference(mine, least, name) for name in CLOSED},
        **dict.fromkeys([*best, ALL]),
    }
    for part, records in replaced:
        metrics: dict[str, Any] = dict(summarise(records, slo))
        shown: dict[str, Any] = {}
        for field, statistic in CLOSED.values():
            shown.setdefault(field, {})[statistic] = metrics[field][statistic]
        shown["removed"] = gap_closed(metrics, mine, least, is_shaky or is_unstable(records))
        result[part] = shown
    return result


def _difference(mine: Any, best: Any, name: str) -> float | None:
    field, statistic = CLOSED[name]
    own, least = mine[field][statistic], best[field][statistic]
    return None if own is None or least is None else own - least
