"""What the study compares: each policy with the settings that it may choose from."""

from __future__ import annotations

from typing import NamedTuple

CHUNKS = (512, 1024)
INTERVALS = (2, 4)
CAPS_S = (0.02, 0.035, 0.05, 0.1, 0.2)
ALIGNED = ((50, 10), (10, 10), (10, 0))


class Policy(NamedTuple):
    """A way to run the group.

    Attributes:
        name: What the tables call it.
        settings: Overrides of each setting; the best on the windows for tuning is reported.
    """

    name: str
    settings: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, name: str, *settings: tuple[str, ...] | str) -> Policy:
        """From overrides, one line for a setting of a single one."""
        return cls(name, tuple((s,) if isinstance(s, str) else s for s in settings))


LEVEL = ("balancer=least_prefill", "budget=level")

ROUND_ROBIN = Policy.of("round_robin", "balancer=round_robin")

LEVEL_POLICY = Policy.of("least_prefill + level", LEVEL)


def _with(balancer: str, budget: str) -> Policy:
    first = f"balancer={balancer}"
    settings = {
        "chunk": [(first, f"backend.max_num_batched_tokens={tokens}") for tokens in CHUNKS],
        "interval": [
            (first, "budget=interval", f"budget.interval_steps={steps}") for steps in INTERVALS
        ],
        "aligned": [
            (
                first,
                "budget=aligned",
                f"budget.timeout_iters={timeout}",
                f"budget.batching_wait_iters={gather}",
            )
            for timeout, gather in ALIGNED
        ],
        "time_cap": [(first, "budget=time_cap", f"budget.step_s={cap_s}") for cap_s in CAPS_S],
    }[budget]
    return Policy.of(f"{balancer} + {budget}", *settings)


PEERS = (
    Policy.of("vllm_0_32", "preset=vllm_0_32"),
    Policy.of("sglang_0_5_23", "preset=sglang_0_5_23"),
    Policy.of("sglang_7379", "preset=sglang_7379"),
    Policy.of("minimum_tokens", "balancer=minimum_tokens"),
    Policy.of("decode_margin", "balancer=decode_margin"),
    Policy.of("least_prefill", "balancer=least_prefill"),
    _with("round_robin", "chunk"),
    _with("least_prefill", "chunk"),
    _with("round_robin", "interval"),
    _with("least_prefill", "interval"),
    _with("round_robin", "aligned"),
    _with("least_prefill", "aligned"),
    _with("round_robin", "time_cap"),
    _with("least_prefill", "time_cap"),
)
"""Others' balancers and budgets, and what could be made of them."""

OTHER_BALANCERS = tuple(
    Policy.of(f"{balancer} + level", (f"balancer={balancer}", "budget=level"))
    for balancer in ("round_robin", "fewest_requests", "minimum_tokens")
)
