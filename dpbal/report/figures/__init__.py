"""The figures of a report, in the order of the page."""

from __future__ import annotations

from dpbal.report.figures import (
    distributions,
    gap,
    goodput,
    heat_map,
    latency_load,
    load,
    stragglers,
    timeline,
)
from dpbal.report.figures.base import Topic

FILES = "requests.parquet and steps.parquet of the runs, which dpbal-run writes beside result.json"

TOPICS = (
    Topic("latencies", "Latencies", distributions.draw, f"Needs finished requests and {FILES}."),
    Topic(
        "gaps",
        "Gap closed",
        gap.draw,
        "Needs runs of another combination than round robin with the fixed budget, beside which"
        " round robin and the pooled reference ran: dpbal-run balancer=minimum_tokens"
        " compare=true.",
    ),
    Topic("loads", "Load of each rank", load.draw, f"Needs {FILES}."),
    Topic(
        "waits",
        "Stragglers",
        stragglers.draw,
        f"Needs a lockstep group, in which ranks wait for each other, and {FILES}.",
    ),
    Topic("timelines", "Steps of all ranks", timeline.draw, f"Needs {FILES}."),
    Topic(
        "latency-against-load",
        "Latency against load",
        latency_load.draw,
        "Needs runs at several loads: dpbal-run -m balancer=round_robin,minimum_tokens"
        " workload.load=0.5,0.7,0.85,0.95.",
    ),
    Topic(
        "goodput-against-slo",
        "Goodput against SLO",
        goodput.draw,
        f"Needs finished requests and {FILES}.",
    ),
    Topic(
        "heat-map",
        "Heat map",
        heat_map.draw,
        "Needs several parts of two of balancer, transport, budget, signal and ledger, each with"
        " each: dpbal-run -m balancer=round_robin,minimum_tokens transport=local,gather_40.",
    ),
)
