"""The weighted sum of report fields and what is in flight, in one compiled call."""

from __future__ import annotations

import numpy as np

from dpbal.core import REPORT
from dpbal.jit import njit

IS_FLOAT = tuple(REPORT[name] == np.float64 for name in REPORT.names or ())


@njit
def add_weighted(
    integers: np.ndarray,
    floats: np.ndarray,
    weights: np.ndarray,
    in_flight: np.ndarray,
    in_flight_weight: float,
    total: np.ndarray,
) -> None:
    """Write ``weights . report + in_flight_weight * in_flight`` of each rank into ``total``."""
    for rank in range(total.size):
        total[rank] = in_flight_weight * in_flight[rank]
    for column in range(weights.size):
        weight = weights[column]
        if weight == 0:
            continue
        if IS_FLOAT[column]:
            for rank in range(total.size):
                total[rank] += weight * floats[rank, column]
        else:
            for rank in range(total.size):
                total[rank] += weight * integers[rank, column]
