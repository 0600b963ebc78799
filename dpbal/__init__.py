"""dpbal balances data-parallel LLM serving: which rank runs a request, how much each prefills."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpbal.balancers import BALANCERS as BALANCERS
    from dpbal.balancers.base import Balancer as Balancer
    from dpbal.budgets import BUDGETS as BUDGETS
    from dpbal.budgets.base import Budget as Budget
    from dpbal.budgets.base import Limits as Limits
    from dpbal.capacity.search import find_capacity as find_capacity
    from dpbal.comparison.comparison import compare as compare
    from dpbal.composition import compose as compose
    from dpbal.config import Config as Config
    from dpbal.core import LoadTable as LoadTable
    from dpbal.core import Placement as Placement
    from dpbal.core import Request as Request
    from dpbal.core import View as View
    from dpbal.dispatcher import Dispatcher as Dispatcher
    from dpbal.errors import ConfigError as ConfigError
    from dpbal.errors import DpbalError as DpbalError
    from dpbal.errors import MissingExtraError as MissingExtraError
    from dpbal.errors import WorkloadError as WorkloadError
    from dpbal.experiment import run as run
    from dpbal.indexers import INDEXERS as INDEXERS
    from dpbal.indexers.base import Indexer as Indexer
    from dpbal.ledger import Ledger as Ledger
    from dpbal.modes import GroupKind as GroupKind
    from dpbal.modes import LedgerMode as LedgerMode
    from dpbal.signals import SIGNALS as SIGNALS
    from dpbal.signals.base import Signal as Signal
    from dpbal.signals.base import Unit as Unit
    from dpbal.step_time import StepTime as StepTime
    from dpbal.transports import TRANSPORTS as TRANSPORTS
    from dpbal.transports.base import Timing as Timing
    from dpbal.transports.base import Transport as Transport
    from dpbal.workloads import WORKLOADS as WORKLOADS
    from dpbal.workloads.base import Requests as Requests
    from dpbal.workloads.base import Workload as Workload

__version__ = "0.1.0"

_HOMES = {
    "dpbal.balancers": ("BALANCERS",),
    "dpbal.balancers.base": ("Balancer",),
    "dpbal.budgets": ("BUDGETS",),
    "dpbal.budgets.base": ("Budget", "Limits"),
    "dpbal.capacity.search": ("find_capacity",),
    "dpbal.comparison.comparison": ("compare",),
    "dpbal.composition": ("compose",),
    "dpbal.config": ("Config",),
    "dpbal.core": ("LoadTable", "Placement", "Request", "View"),
    "dpbal.dispatcher": ("Dispatcher",),
    "dpbal.errors": ("ConfigError", "DpbalError", "MissingExtraError", "WorkloadError"),
    "dpbal.experiment": ("run",),
    "dpbal.indexers": ("INDEXERS",),
    "dpbal.indexers.base": ("Indexer",),
    "dpbal.ledger": ("Ledger",),
    "dpbal.modes": ("GroupKind", "LedgerMode"),
    "dpbal.signals": ("SIGNALS",),
    "dpbal.signals.base": ("Signal", "Unit"),
    "dpbal.step_time": ("StepTime",),
    "dpbal.transports": ("TRANSPORTS",),
    "dpbal.transports.base": ("Timing", "Transport"),
    "dpbal.workloads": ("WORKLOADS",),
    "dpbal.workloads.base": ("Requests", "Workload"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import dpbal`` stays light."""
    if name not in _HOME:
        raise AttributeError(f"module 'dpbal' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
