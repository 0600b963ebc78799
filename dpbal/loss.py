"""Where the loss to the pooled reference goes: one part after another replaced by the best known.

The best known parts are rules like any other and no bounds, so that a share may be negative or over
1, and the shares need not add up: parts make up for one another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dpbal.config import Config, LedgerConfig, Slo
from dpbal.metrics import is_unstable, summarise
from dpbal.modes import GroupKind, LedgerMode
from dpbal.results import CLOSED, gap_closed

if TYPE_CHECKING:
    from dpbal.backends.base import Records
    from dpbal.backends.simulator.simulator import Simulator

ALL = "all"
"""All parts at once."""

BEST_KNOWN: dict[str, dict[str, Any]] = {
    "placement": {
        "balancer": {"name": "least_prefill"},
        "signal": {
            "name": "sum",
            "terms": {"prefill_work": 1.0, "in_flight": 1.0, "decode_work": 0.001},
        },
        "transport": {"name": "local"},
        "ledger": LedgerConfig(LedgerMode.acknowledge),
    },
    "budget": {"budget": {"name": "level"}},
    "staleness": {"transport": {"name": "local"}},
}
"""What each part puts into the config; staleness also takes the lag from the budget's vectors."""

NAMES = {"placement": "least_prefill", "budget": "level", "staleness": "no delay"}
"""What each part is replaced by, in a word."""


def with_best_known(config: Config, engines: Simulator) -> dict[str, tuple[Config, Simulator]]:
    """The combination with each part, and then with all parts, replaced by the best known.

    Args:
        config: The combination.
        engines: Where it runs.

    Returns:
        A config and the engines for it, by part; no budget in an independent group, where the best
        known one does nothing.
    """
    is_lockstep = config.group.kind is GroupKind.lockstep
    parts = [part for part in BEST_KNOWN if is_lockstep or part != "budget"]
    replaced = {part: BEST_KNOWN[part] for part in parts}
    replaced[ALL] = {key: node for part in parts for key, node in BEST_KNOWN[part].items()}
    without_lag = replace(engines, vector_lag=0)
    return {
        part: (replace(config, **nodes), without_lag if part in ("staleness", ALL) else engines)
        for part, nodes in replaced.items()
    }


def split(
    own: Records, pooled: Records, replaced: Iterable[tuple[str, Records]], slo: Slo
) -> dict[str, Any]:
    """``loss`` of ``result.json``.

    Args:
        own: What the combination did.
        pooled: What the pooled reference did.
        replaced: What it did with each part of ``with_best_known``; asked for one by one.
        slo: What makes a request good.
    """
    mine, best = summarise(own, slo), summarise(pooled, slo)
    is_shaky = is_unstable(own)
    result: dict[str, Any] = {
        "best_known": dict(NAMES),
        "lost_s": {name: _difference(mine, best, name) for name in CLOSED},
        **dict.fromkeys([*BEST_KNOWN, ALL]),
    }
    for part, records in replaced:
        metrics: dict[str, Any] = dict(summarise(records, slo))
        shown: dict[str, Any] = {}
        for field, statistic in CLOSED.values():
            shown.setdefault(field, {})[statistic] = metrics[field][statistic]
        shown["removed"] = gap_closed(metrics, mine, best, is_shaky or is_unstable(records))
        result[part] = shown
    return result


def _difference(mine: Any, best: Any, name: str) -> float | None:
    field, statistic = CLOSED[name]
    own, least = mine[field][statistic], best[field][statistic]
    return None if own is None or least is None else own - least
