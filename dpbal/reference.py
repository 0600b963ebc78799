"""The pooled reference machine: what the ranks could do if they were one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dpbal.errors import WorkloadError
from dpbal.modes import GroupKind
from dpbal.step_time import StepTime

if TYPE_CHECKING:
    from dpbal.backends.base import Parts, Records
    from dpbal.backends.simulator.simulator import Simulator
    from dpbal.workloads.base import Requests


def pooled_step_time(step_time: StepTime, ranks: int) -> StepTime:
    """The profile of one rank with ``ranks`` times the KV cache and 1/``ranks`` of what divides.

    The fixed parts and the mixed-step penalty stay. One rank has nobody to be padded to.
    """
    return replace(
        step_time,
        kv_capacity_tokens=step_time.kv_capacity_tokens * ranks,
        prefill_s_per_token=step_time.prefill_s_per_token / ranks,
        decode_s_per_seq=step_time.decode_s_per_seq / ranks,
        kv_s_per_token=step_time.kv_s_per_token / ranks,
        attention_s_per_pair=step_time.attention_s_per_pair / ranks,
        common_s_per_token=step_time.common_s_per_token / ranks,
        pad_to_largest=False,
    )


def pooled_backend(backend: Simulator, ranks: int) -> Simulator:
    """An engine with ``ranks`` times the slots, the token budget and the KV cache."""
    capacity = backend.kv_capacity_tokens
    return replace(
        backend,
        max_num_batched_tokens=backend.max_num_batched_tokens * ranks,
        max_num_seqs=backend.max_num_seqs * ranks,
        kv_capacity_tokens=None if capacity is None else capacity * ranks,
        hold=False,
        restarts=None,
    )


def run_pooled(
    requests: Requests, backend: Simulator, step_time: StepTime, ranks: int, seed: int
) -> Records:
    """Run the requests on the pooled machine, first come first served.

    It is a strong reference and not a strict bound: a policy can beat it on a mean, for example
    by favouring short requests, and in a lockstep group it splits one prompt over all ranks,
    which no policy can.
    """
    return pooled_backend(backend, ranks).run(requests, _parts(step_time, ranks, seed))


def saturation_rate(
    requests: Requests, backend: Simulator, step_time: StepTime, ranks: int
) -> float:
    """Requests a second at which the pooled machine works off this very set of requests.

    All requests are there at the start; the rate is their number over the time until the last has
    finished, the tail included. A ``workload.load`` of 1 means this rate.

    Raises:
        WorkloadError: If no request fits the KV cache, or the profile costs nothing.
    """
    from dpbal.backends.base import Outcome

    at_once = replace(requests, arrival_s=np.zeros(len(requests)))
    endless = replace(backend, max_time_s=None, cache_resets=None)
    records = run_pooled(at_once, endless, step_time, ranks, seed=0)
    finished = int((records.requests["outcome"] == Outcome.finished).sum())
    if finished == 0:
        raise WorkloadError(
            "no request of the workload fits the KV cache, so no load can be set; "
            "give workload.rate instead of workload.load, or a larger backend.kv_capacity_tokens"
        )
    last_s = float(records.steps["end_s"].max())
    if last_s == 0:
        raise WorkloadError("the profile costs nothing, so no load can be set; give workload.rate")
    return finished / last_s


def _parts(step_time: StepTime, ranks: int, seed: int) -> Parts:
    from dpbal.backends.base import Parts
    from dpbal.balancers import RoundRobin
    from dpbal.budgets import Fixed
    from dpbal.core import LoadTable
    from dpbal.dispatcher import Dispatcher
    from dpbal.ledger import Ledger
    from dpbal.signals import RequestCount
    from dpbal.transports import Local

    table = LoadTable(ranks=1)
    pooled = pooled_step_time(step_time, ranks)
    balancer = RoundRobin()
    balancer.start(1, seed)
    return Parts(
        dispatchers=[Dispatcher(balancer, RequestCount(), Ledger(1), table, pooled)],
        transport=Local(),
        budget=Fixed(),
        step_time=pooled,
        kind=GroupKind.independent,
        ranks=1,
        seed=seed,
    )
