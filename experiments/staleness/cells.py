"""What the study compares: rules and ledgers under reports of an age."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from experiments.held_out import KINDS, workload_lines
from experiments.plans import Policies

WORKLOAD = "azure_conv"
LOAD = 0.85
AGES_S = (0.0, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
HOW = {"late": "delay_s", "seldom": "interval_s"}
"""Every report as late as that, or all of them looked at only so often."""

BASELINE = "round_robin"
RANDOM = "random"
BALANCERS = ("least_prefill", "minimum_tokens", "fewest_requests")
LEDGERS = ("acknowledge", "overwrite")
RULES = (*product(BALANCERS, LEDGERS), ("power_of_two", "acknowledge"))


class Setting(NamedTuple):
    """A way to choose ranks.

    Attributes:
        rule: Its balancer.
        ledger: Its mode.
        how: One of ``HOW``.
        age_s: How late, or how seldom.
    """

    rule: str
    ledger: str
    how: str
    age_s: float

    @property
    def name(self) -> str:
        """Of the policy in the rows; fresh reports are neither late nor seldom."""
        return "|".join((self.rule, self.ledger, self.how if self.age_s else "", str(self.age_s)))

    def lines(self) -> tuple[str, ...]:
        """Its configuration."""
        return (
            f"balancer={self.rule}",
            f"ledger.mode={self.ledger}",
            "transport=delayed",
            f"transport.{HOW[self.how]}={self.age_s}",
        )


SETTINGS = [Setting(*rule, how, age_s) for rule in RULES for how in HOW for age_s in AGES_S]
POLICIES: Policies = {
    BASELINE: ("balancer=round_robin",),
    RANDOM: ("balancer=random",),
    **{setting.name: setting.lines() for setting in SETTINGS},
}

NO_DECODE_WORK = "signal.terms.decode_work=0"
TIES: Policies = {
    BASELINE: ("balancer=round_robin",),
    "least_prefill": ("balancer=least_prefill",),
    "ties=random": ("balancer=least_prefill", "balancer.ties=random"),
    "no decode_work": ("balancer=least_prefill", NO_DECODE_WORK),
    "no decode_work, ties=random": (
        "balancer=least_prefill",
        NO_DECODE_WORK,
        "balancer.ties=random",
    ),
}
"""Ways to keep front ends apart where ranks look alike; with fresh reports."""


class Cell(NamedTuple):
    """What all policies have in common.

    Attributes:
        kind: One of ``KINDS``.
        dispatchers: Front ends, each with a ledger of its own.
    """

    kind: str
    dispatchers: int

    def lines(self, draw: int) -> tuple[str, ...]:
        """The configuration of a window."""
        return (
            *workload_lines(WORKLOAD, draw, 0),
            f"workload.load={LOAD}",
            *KINDS[self.kind],
            f"group.dispatchers={self.dispatchers}",
            "budget=fixed",
        )
