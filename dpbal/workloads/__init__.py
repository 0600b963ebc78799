"""Where requests come from: drawn at random, or replayed from a trace."""

from __future__ import annotations

from dpbal.workloads.azure import AzureCode, AzureConv
from dpbal.workloads.base import WORKLOADS, Requests, Workload
from dpbal.workloads.conversations import Conversations
from dpbal.workloads.hot_prefix import HotPrefix
from dpbal.workloads.mooncake import MooncakeConversation
from dpbal.workloads.synthetic import Synthetic
from dpbal.workloads.trace_csv import TraceCsv
from dpbal.workloads.trace_jsonl import TraceJsonl

__all__ = [
    "WORKLOADS",
    "AzureCode",
    "AzureConv",
    "Conversations",
    "HotPrefix",
    "MooncakeConversation",
    "Requests",
    "Synthetic",
    "TraceCsv",
    "TraceJsonl",
    "Workload",
]
