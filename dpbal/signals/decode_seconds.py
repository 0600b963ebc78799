"""Seconds of decoding of what ranks have been given, in one compiled call."""

from __future__ import annotations

import numpy as np

from dpbal.core import column
from dpbal.jit import njit

RUNNING = column("running")
WAITING = column("waiting")
HOLDING = column("holding_tokens")


@njit
def decode_seconds(
    integers: np.ndarray,
    requests: np.ndarray,
    tokens: np.ndarray,
    s_per_seq: float,
    s_per_token: float,
    total: np.ndarray,
) -> None:
    """Write the seconds of each rank, what is in flight included, into ``total``."""
    for rank in range(total.size):
        seqs = integers[rank, RUNNING] + integers[rank, WAITING] + requests[rank]
        held = integers[rank, HOLDING] + tokens[rank]
        total[rank] = s_per_seq * seqs + s_per_token * held
