"""Ranks that are configured to be textbook queues have the textbook's mean times.

Every interval is at 99.9 %, and narrow enough that a neighbouring formula would fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest

from dpbal.backends.simulator.simulator import Simulator
from dpbal.balancers import Balancer, LeastLoad, Random, RoundRobin
from dpbal.balancers.least_load import Ties
from dpbal.step_time import StepTime
from dpbal.workloads import Requests
from tests.simulator.runs import Run, simulate
from tests.theory.queues import (
    Interval,
    erlang_c,
    gim1_sojourn_s,
    interval,
    jsq2_sojourn_s,
    md1_sojourn_s,
    mm1_sojourn_s,
)

Service: TypeAlias = Callable[[np.random.Generator, int], np.ndarray]
Serve: TypeAlias = Callable[[np.ndarray, np.ndarray, int], Run]

REPLICATIONS = 24
WARM_UP = 400
"""Requests of each replication that are left out, as they find the system nearly empty."""

GRAIN = 10_000
"""Prompt tokens of a mean service, which takes one second."""

PREFILLS = StepTime(prefill_s_per_token=1 / GRAIN, kv_capacity_tokens=1 << 40)
ONE_AT_A_TIME = Simulator(max_num_seqs=1, max_num_batched_tokens=1 << 40, block_size=1 << 30)


def estimate(
    serve: Serve,
    measures: dict[str, Callable[[Run], np.ndarray]],
    arrival_rate: float,
    service: Service,
    length: int,
) -> dict[str, Interval]:
    """Means over the requests of independent replications; a mean service is one second.

    What the drawn gaps and services are off their own means explains a part of the scatter.
    """
    means: dict[str, list[float]] = {name: [] for name in measures}
    controls = []
    for seed in range(REPLICATIONS):
        rng = np.random.default_rng([seed, length])
        gaps_s = rng.exponential(1 / arrival_rate, length)
        works_s = service(rng, length)
        run = serve(np.cumsum(gaps_s), works_s, seed)
        for name, measure in measures.items():
            means[name].append(measure(run)[WARM_UP:].mean())
        controls.append(
            (
                gaps_s[WARM_UP:].mean() * arrival_rate - 1,
                works_s[WARM_UP:].mean() - 1,
                (works_s[WARM_UP:] ** 2).mean() - SECOND_MOMENT[service],
            )
        )
    by = np.array(controls)
    return {name: interval(np.array(values), by) for name, values in means.items()}


def exponential(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.exponential(1.0, size)


def constant(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.ones(size)


def two_sizes(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.where(rng.random(size) < 0.75, 0.5, 2.5)


SECOND_MOMENT: dict[Service, float] = {
    exponential: 2.0,
    constant: 1.0,
    two_sizes: 0.75 * 0.25 + 0.25 * 6.25,
}


def single_token_requests(arrival_s: np.ndarray, works_s: np.ndarray) -> Requests:
    prompts = np.maximum(1, np.rint(works_s * GRAIN)).astype(np.int64)
    return Requests(arrival_s, prompts, np.ones_like(prompts))


def mean_sojourn_s(
    arrival_rate: float,
    service: Service,
    length: int,
    ranks: int = 1,
    balancer: Callable[[], Balancer] = RoundRobin,
) -> Interval:
    """Mean time from arrival to the end of ranks that serve one request at a time."""

    def serve(arrival_s: np.ndarray, works_s: np.ndarray, seed: int) -> Run:
        return simulate(
            single_token_requests(arrival_s, works_s),
            PREFILLS,
            ranks=ranks,
            balancer=balancer,
            engine=ONE_AT_A_TIME,
            seed=seed,
        )

    measures = {"sojourn": lambda run: run.e2e_s}
    return estimate(serve, measures, arrival_rate, service, length)["sojourn"]


def shortest_queue() -> Balancer:
    return LeastLoad(ties=Ties.random)


def agree(simulated: Interval, theory: float, precision: float) -> bool:
    print(f"theory {theory:.4f}, simulated {simulated.mean:.4f} +- {simulated.half_width:.4f}")
    assert simulated.half_width < precision * theory, "too wide to tell a wrong formula"
    return simulated.holds(theory)


def test_every_request_ends_when_lindley_says() -> None:
    rng = np.random.default_rng(5)
    arrival_s = np.cumsum(rng.exponential(1.1, 5_000))
    requests = single_token_requests(arrival_s, rng.exponential(1.0, 5_000))
    run = simulate(requests, PREFILLS, engine=ONE_AT_A_TIME)
    end_s = 0.0
    expected = []
    for at_s, prompt in zip(requests.arrival_s, requests.prompt_tokens, strict=True):
        end_s = max(end_s, at_s) + prompt / GRAIN
        expected.append(end_s)
    np.testing.assert_allclose(run.requests["finish_s"], expected, rtol=1e-12)


@pytest.mark.parametrize(("rho", "length"), [(0.5, 6_000), (0.8, 18_000)])
def test_a_rank_is_an_mm1_queue(rho: float, length: int) -> None:
    assert agree(mean_sojourn_s(rho, exponential, length), mm1_sojourn_s(rho), 0.05)


def test_a_rank_with_equal_prompts_is_an_md1_queue() -> None:
    assert agree(mean_sojourn_s(0.8, constant, 6_000), md1_sojourn_s(0.8), 0.05)


def test_two_ranks_at_random_are_two_mm1_queues() -> None:
    simulated = mean_sojourn_s(1.4, exponential, 12_000, 2, Random)
    assert agree(simulated, mm1_sojourn_s(0.7), 0.05)


def test_two_ranks_in_turn_are_two_e2m1_queues() -> None:
    simulated = mean_sojourn_s(1.4, exponential, 9_000, 2, RoundRobin)
    assert agree(simulated, gim1_sojourn_s(2, 0.7), 0.05)


def test_the_shortest_of_two_queues() -> None:
    simulated = mean_sojourn_s(1.4, exponential, 9_000, 2, shortest_queue)
    assert agree(simulated, jsq2_sojourn_s(1.4), 0.03)


def test_a_batch_of_four_is_an_mmc_queue() -> None:
    servers, offered, steps = 4, 2.8, 80
    one_step_s = 1 / steps

    def serve(arrival_s: np.ndarray, works_s: np.ndarray, seed: int) -> Run:
        outputs = np.ceil(works_s * steps).astype(np.int64)
        requests = Requests(arrival_s, np.ones_like(outputs), outputs)
        engine = Simulator(max_num_seqs=servers)
        return simulate(requests, StepTime(fixed_s=one_step_s), engine=engine, seed=seed)

    measures = {
        "wait": lambda run: run.ttft_s - one_step_s,
        "delayed": lambda run: run.ttft_s > 2 * one_step_s,  # longer than to the next step
        "sojourn": lambda run: run.e2e_s,
    }
    simulated = estimate(serve, measures, offered, exponential, 5_000)
    delay = erlang_c(servers, offered)
    wait_s = delay / (servers - offered) + 0.5 * one_step_s  # an arrival joins between two steps
    assert agree(simulated["delayed"], delay, 0.07)
    assert agree(simulated["wait"], wait_s, 0.12)
    assert agree(simulated["sojourn"], 1 + wait_s + 0.5 * one_step_s, 0.04)  # whole steps


@pytest.mark.parametrize("service", [exponential, two_sizes])
def test_a_decode_batch_shares_the_processor_whatever_the_lengths(service: Service) -> None:
    """Steps that cost as much as their batch is large share a server evenly."""
    tokens, rho = 60, 0.6
    shared = StepTime(prefill_s_per_token=1 / tokens, decode_s_per_seq=1 / tokens)

    def serve(arrival_s: np.ndarray, works_s: np.ndarray, seed: int) -> Run:
        outputs = np.maximum(1, np.rint(works_s * tokens)).astype(np.int64)
        requests = Requests(arrival_s, np.ones_like(outputs), outputs)
        return simulate(requests, shared, engine=Simulator(max_num_seqs=4096), seed=seed)

    simulated = estimate(serve, {"sojourn": lambda run: run.e2e_s}, rho, service, 3_000)
    assert agree(simulated["sojourn"], mm1_sojourn_s(rho), 0.06)
