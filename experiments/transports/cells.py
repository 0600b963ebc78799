"""One run of the study: a balancer, a ledger and a transport on a window of a trace or a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from experiments.cells import LATENCIES, measure

TRACE = "azure_conv"
REQUESTS = 1000
"""Of workloads that are not cut into windows."""

KINDS = {
    "lockstep": ("group.kind=lockstep", "profile=lds_prototype", "budget=level"),
    "independent": ("group.kind=independent", "profile=i8b_prototype", "budget=fixed"),
}
"""How the ranks step, on which profile, under which budget."""

TIMING = Path(__file__).parent / "timing" / "transport"
"""What ``dpbal-bench transport --timing`` wrote."""

RANKS = 8
MEASURED = ("shm", "zmq", "zmq_tcp", "manager", "gather_1", "gather")
PEERS = ("snapshot_15", "broadcast_100ms", "poll_1s")
IDEAL = "local"


class Policy(NamedTuple):
    """What is compared.

    Attributes:
        balancer: Its name.
        ledger: Its mode.
        transport: Of ``MEASURED`` or ``PEERS``, or ``IDEAL``.
    """

    balancer: str
    ledger: str
    transport: str

    def lines(self) -> tuple[str, ...]:
        """Its configuration."""
        return (
            f"balancer={self.balancer}",
            f"ledger.mode={self.ledger}",
            *transport_lines(self.transport),
        )


def transport_lines(name: str) -> tuple[str, ...]:
    """The configuration of a transport, as it was measured where it was."""
    if name not in MEASURED:
        return (f"transport={name}",)
    timing = OmegaConf.load(TIMING / f"{name}_{RANKS}.yaml")
    fields = {str(key): value for key, value in timing.items() if key != "name"}
    return ("transport=delayed", *(f"transport.{key}={value}" for key, value in fields.items()))


class Cell(NamedTuple):
    """What all policies have in common.

    Attributes:
        workload: Its name.
        kind: One of ``KINDS``.
        load: Of the pooled machine.
        dispatchers: Front ends, each with a ledger of its own.
    """

    workload: str = TRACE
    kind: str = "lockstep"
    load: float = 0.85
    dispatchers: int = 1

    def lines(self, draw: int) -> tuple[str, ...]:
        """The configuration of a window or seed."""
        own = [
            f"workload={self.workload}",
            f"workload.load={self.load}",
            f"group.ranks={RANKS}",
            f"group.dispatchers={self.dispatchers}",
            *KINDS[self.kind],
        ]
        if self.workload == TRACE:
            return (*own, "workload.windows=10", f"workload.window={draw}")
        return (*own, f"workload.requests={REQUESTS}", f"seed={draw}")


def run(cell: Cell, draw: int, policy: Policy) -> dict[str, Any]:
    """What the tables show of a policy."""
    columns, metrics = measure(cell, draw, policy.lines(), LATENCIES)
    return {**columns, "lost": metrics["lost"], "unstable": metrics["unstable"]}
