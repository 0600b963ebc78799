"""Mean times of textbook queues, exact or solved numerically, and confidence intervals."""

from __future__ import annotations

from math import factorial
from typing import NamedTuple

import numpy as np
from scipy import optimize, sparse, stats
from scipy.sparse import linalg


class Interval(NamedTuple):
    """A confidence interval for a mean."""

    mean: float
    half_width: float

    def holds(self, value: float) -> bool:
        """Whether ``value`` is inside."""
        return abs(self.mean - value) <= self.half_width


def interval(
    samples: np.ndarray, controls: np.ndarray | None = None, confidence: float = 0.999
) -> Interval:
    """Student's interval for the mean of independent replications.

    Args:
        samples: ``float64[n]``, one mean per replication.
        controls: ``float64[n, q]``, quantities of the same replications whose expectation is 0.
            What they explain linearly is taken off (Lavenberg and Welch, Management Science 1981).
        confidence: Probability that the interval holds the true mean.
    """
    n = len(samples)
    design = np.ones((n, 1)) if controls is None else np.column_stack([np.ones(n), controls])
    spread = np.linalg.pinv(design.T @ design, hermitian=True)
    coefficients = spread @ design.T @ samples
    freedom = n - int(np.linalg.matrix_rank(design))
    residual = samples - design @ coefficients
    deviation = np.sqrt(residual @ residual / freedom * spread[0, 0])
    quantile = stats.t.ppf((1 + confidence) / 2, freedom)
    return Interval(float(coefficients[0]), float(quantile * deviation))


def mm1_sojourn_s(arrival_rate: float, service_s: float = 1.0) -> float:
    """Mean time in an M/M/1 queue."""
    return service_s / (1 - arrival_rate * service_s)


def md1_sojourn_s(arrival_rate: float, service_s: float = 1.0) -> float:
    """Mean time in an M/D/1 queue, by Pollaczek and Khinchine."""
    rho = arrival_rate * service_s
    return service_s * (1 + rho / (2 * (1 - rho)))


def erlang_c(servers: int, offered: float) -> float:
    """Probability that an arrival at an M/M/c queue has to wait."""
    terms = [offered**k / factorial(k) for k in range(servers)]
    last = offered**servers / factorial(servers) / (1 - offered / servers)
    return last / (sum(terms) + last)


def gim1_sojourn_s(stages: int, arrival_rate: float) -> float:
    """Mean time in an Erlang/M/1 queue with unit service, from the root of its embedded chain."""

    def excess(sigma: float) -> float:
        stage_rate = stages * arrival_rate
        return float((stage_rate / (stage_rate + 1 - sigma)) ** stages - sigma)

    sigma = optimize.brentq(excess, 1e-9, 1 - 1e-6)
    return float(1 / (1 - sigma))


def jsq2_sojourn_s(arrival_rate: float, longest: int = 70) -> float:
    """Mean time with two unit servers of which an arrival joins the shorter, by the Markov chain.

    The chain of both queue lengths is cut off at ``longest`` and solved for its stationary
    distribution; ties are split evenly. Little's law gives the time.
    """
    size = longest + 1
    rates = sparse.lil_matrix((size * size, size * size))
    for a in range(size):
        for b in range(size):
            state = a * size + b
            if a < b:
                arrivals = {(a + 1, b): arrival_rate}
            elif b < a:
                arrivals = {(a, b + 1): arrival_rate}
            else:
                arrivals = {(a + 1, b): arrival_rate / 2, (a, b + 1): arrival_rate / 2}
            moves = {**arrivals, (a - 1, b): 1.0, (a, b - 1): 1.0}
            for (to_a, to_b), rate in moves.items():
                if 0 <= to_a < size and 0 <= to_b < size:
                    rates[to_a * size + to_b, state] += rate
                    rates[state, state] -= rate
    rates[0, :] = 1.0  # one balance equation is redundant; the probabilities add up to 1
    right = np.zeros(size * size)
    right[0] = 1.0
    probabilities = linalg.spsolve(rates.tocsc(), right).reshape(size, size)
    lengths = np.add.outer(np.arange(size), np.arange(size))
    carried = arrival_rate * (1 - probabilities[-1, -1])
    return float((probabilities * lengths).sum() / carried)
