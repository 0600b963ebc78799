"""KV that a rank has in use plus the tokens it has waiting."""

from __future__ import annotations

from dataclasses import dataclass

from dpbal.signals.base import SIGNALS, Reported, Unit


@SIGNALS.register("get_load")
@dataclass
class GetLoad(Reported):
    """KV tokens in use, without what could be evicted, plus the tokens of waiting requests.

    Formula: ``load = kv_used_tokens + waiting_tokens``. A prefix that running requests share counts
    once, and a running request that is still in prefill counts only as far as it has come.

    Wins over ``holding_tokens`` where prefixes are shared. Loses, as that does, where resident KV
    is no work.

    Reference: SGLang 0.4.10, ``Scheduler.get_load``, which the merged PR #7379 reports as its
    holding tokens; SGLang 0.5.23, ``num_total_tokens``.
    """

    fields = ("kv_used_tokens", "waiting_tokens")
    unit = Unit.tokens
