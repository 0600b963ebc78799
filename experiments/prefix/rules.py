"""What the study compares: rules that know prefixes, rules that do not, and kinds of knowledge."""

from __future__ import annotations

Rule = tuple[str, ...]
"""Overrides of a configuration."""

BLIND = "least_prefill"
OURS = "marginal_prefill"

BLIND_RULES: dict[str, Rule] = {
    "round_robin": ("balancer=round_robin",),
    "vllm": ("balancer=vllm",),
    BLIND: ("balancer=least_prefill",),
}
"""Rules that do not know what is cached."""

PEERS: dict[str, Rule] = {
    "cache_aware": ("balancer=cache_aware",),
    "tensorrt_llm": ("balancer=tensorrt_llm",),
    "dynamo": ("balancer=dynamo",),
    "llm_d": ("balancer=llm_d",),
    "lmetric": ("balancer=lmetric",),
    "consistent_hash": ("balancer=consistent_hash",),
    "session_affinity": ("balancer=session_affinity",),
}
"""Other projects' rules with their defaults, on the same reports and the same knowledge as ours."""

CACHE_AWARE: dict[str, Rule] = {
    "least_prefill, miss_weight 1": ("balancer=least_prefill", "balancer.miss_weight=1"),
    "least_prefill, miss_weight 8": ("balancer=least_prefill", "balancer.miss_weight=8"),
    OURS: ("balancer=marginal_prefill",),
}
"""dpbal's own, the last of them the default advice."""

RULES = {**BLIND_RULES, **PEERS, **CACHE_AWARE}

KNOWLEDGE: dict[str, Rule] = {
    "oracle": ("indexer=oracle",),
    "kv_events, at once": ("indexer=kv_events",),
    "kv_events, .5 s late": ("indexer=kv_events", "indexer.delay_s=0.5"),
    "kv_events, 5 s late": ("indexer=kv_events", "indexer.delay_s=5"),
    "shared_record": ("indexer=shared_record",),
    "own_record": ("indexer=own_record",),
    "own_record of a quarter": ("indexer=own_record", "indexer.size=0.25"),
    "own_record of one": ("indexer=own_record", "indexer.size=1"),
    "own_record of four": ("indexer=own_record", "indexer.size=4"),
    "none": ("indexer=none",),
}
"""What ``marginal_prefill`` may know; sizes are in caches of a rank."""
