"""Groups of ranks, and windows and seeds that nothing was tuned on, for studies to report on."""

from __future__ import annotations

KINDS = {
    "lockstep": ("group.kind=lockstep", "profile=deepseek_v3_h200"),
    "independent": ("group.kind=independent", "profile=llama31_8b_h200"),
}
"""How the ranks step, with a profile of a model that is served so."""

MOONCAKE = "mooncake_conversation"
TRACES = ("azure_conv", "azure_code", MOONCAKE)
WINDOWS = 10
"""Parts that a trace is cut into; every default was chosen on the first half of them."""

SEEDS = tuple(range(2, 10))


def draws(workload: str) -> tuple[int, ...]:
    """Windows of the second half of a trace, or seeds."""
    return tuple(range(WINDOWS // 2, WINDOWS)) if workload in TRACES else SEEDS


def workload_lines(workload: str, draw: int, requests: int) -> tuple[str, ...]:
    """The configuration of a window of a trace, or of so many drawn requests of a seed."""
    chosen = f"workload={workload}"
    if workload in TRACES:
        return (chosen, f"workload.windows={WINDOWS}", f"workload.window={draw}")
    return (chosen, f"workload.requests={requests}", f"seed={draw}")
