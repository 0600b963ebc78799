"""All metrics of a dpbal server: their names, what they mean, and how processes combine."""

from __future__ import annotations

from typing import NamedTuple

from dpbal.backends.vllm.metrics.counts import AGE_BOUNDS_S, DECISION_BOUNDS_S


class Family(NamedTuple):
    """One metric.

    Attributes:
        name: Without the ``_total`` that a counter has beside it in ``/metrics``.
        help: What it is.
        labels: By which it is divided.
        combined: For a gauge, how the values of several front-end processes become one, as
            prometheus_client calls it; None for a counter, of which they are added.
        bounds: For a histogram, upper bounds of its buckets.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    combined: str | None = None
    bounds: tuple[float, ...] | None = None

    @property
    def kind(self) -> str:
        """What Prometheus calls it."""
        if self.bounds is not None:
            return "histogram"
        return "counter" if self.combined is None else "gauge"

    @property
    def exported(self) -> str:
        """Its name in ``/metrics``; those of a histogram go on from it."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


ENGINE = ("engine",)

# all processes see the same reports: the newest look at them is as good as any
NEWEST = "livemostrecent"
SUM = "livesum"
LEAST = "livemin"
MOST = "livemax"

INFO = Family(
    "dpbal_info",
    "1, with what the server was started with.",
    (
        *("version", "balancer", "signal", "indexer", "transport", "budget", "ledger", "profile"),
        "kind",
    ),
    MOST,
)
DISPATCHER_LOAD = Family(
    "dpbal_dispatcher_load",
    "The number that a front end compares ranks by, what it has in flight included.",
    ("engine", "dispatcher", "signal", "unit"),
    NEWEST,
)
REPORTED_LOAD = Family(
    "dpbal_reported_load",
    "What a rank's newest report says, by each signal that is a field of it.",
    ("engine", "signal", "unit"),
    NEWEST,
)
IN_FLIGHT_REQUESTS = Family(
    "dpbal_in_flight_requests", "Requests sent that no report covers yet.", ENGINE, SUM
)
IN_FLIGHT_TOKENS = Family(
    "dpbal_in_flight_tokens", "Prompt tokens sent that no report covers yet.", ENGINE, SUM
)
IN_FLIGHT_S = Family(
    "dpbal_in_flight_prefill_seconds",
    "Seconds of prefill sent that no report covers yet, without expected prefix hits.",
    ENGINE,
    SUM,
)
OUTSTANDING = Family(
    "dpbal_outstanding_requests", "Requests sent that have not ended.", ENGINE, SUM
)
SELECTABLE = Family(
    "dpbal_rank_selectable",
    "1 where a rank may be chosen, 0 where a front end leaves it out.",
    ENGINE,
    LEAST,
)
REPORT_AGE = Family(
    "dpbal_report_age_seconds",
    "Age of a rank's newest report; a rank without work has nothing to report.",
    ENGINE,
    MOST,
)
CHOICES = Family(
    "dpbal_choices",
    "Requests sent to a rank, by who chose it: the balancer, or the client that named it.",
    ("engine", "by"),
)
DECISION = Family(
    "dpbal_decision_seconds",
    "How long the choice of a rank took, with the look at the reports and hashes of the prompt.",
    bounds=DECISION_BOUNDS_S,
)
DECISION_AGE = Family(
    "dpbal_decision_report_age_seconds",
    "How old the chosen rank's report was at the choice; a rank without work has nothing to "
    "report.",
    bounds=AGE_BOUNDS_S,
)
RELEASES = Family(
    "dpbal_ledger_releases",
    "Requests that ceased to be in flight, by cause: report, the front end saw one that covers "
    "them; end, they ended before; restart, their rank was started anew.",
    ("cause",),
)
UNKNOWN_RELEASES = Family(
    "dpbal_ledger_unknown_releases", "Ends of requests that were not outstanding."
)
ENDED = Family(
    "dpbal_requests_ended",
    "Requests by how they ended: finished; aborted, by the client or by a stop string; error; "
    "not_sent.",
    ("how",),
)
EXPECTED_PREFIX = Family(
    "dpbal_expected_prefix_tokens",
    "Prompt tokens that were expected in the chosen rank's prefix cache.",
    ENGINE,
)
STEPS = Family("dpbal_rank_steps", "Steps in which a rank had tokens.", ENGINE)
LOCAL_S = Family(
    "dpbal_rank_local_seconds",
    "Seconds of these steps that are a rank's own, by the profile.",
    ENGINE,
)
GROUP_STEPS = Family(
    "dpbal_group_steps", "Steps of a lockstep group in which all ranks were compared."
)
SKIPPED_STEPS = Family(
    "dpbal_group_steps_skipped", "Steps in which one of them could not be found."
)
MEAN_S = Family(
    "dpbal_group_step_mean_seconds",
    "Sum over the compared steps of the mean over ranks of their own seconds, by the profile.",
)
LONGEST_S = Family(
    "dpbal_group_step_longest_seconds",
    "Likewise of the longest; 1 - mean / longest is the straggler share.",
)
LIMIT_S = Family(
    "dpbal_budget_limit_seconds",
    "Most seconds of prefill in a rank's newest step; infinity for no limit.",
    ENGINE,
    NEWEST,
)
LIMIT_TOKENS = Family("dpbal_budget_limit_tokens", "Likewise tokens of prefill.", ENGINE, NEWEST)
LEVEL_S = Family(
    "dpbal_budget_level_seconds",
    "Local seconds up to which the budget lets a rank fill that step, decodes included.",
    ENGINE,
    NEWEST,
)
BUDGET_STEPS = Family("dpbal_budget_steps", "Steps for which a rank's budget set limits.", ENGINE)
ALONE_STEPS = Family(
    "dpbal_budget_steps_alone",
    "Those of them in which the rank did not know the others' vectors.",
    ENGINE,
)

FAMILIES = tuple(found for found in list(globals().values()) if isinstance(found, Family))
"""All of them, in this order."""
