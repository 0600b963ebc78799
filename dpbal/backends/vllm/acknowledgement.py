"""How a dispatch's place in the order travels with its request, and how a rank acknowledges it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

HEADER = "x-dpbal-dispatch"
"""A trace header: the one field of vLLM's request that holds anything and reaches the scheduler."""


class Dispatched(NamedTuple):
    """Which dispatch a request was.

    Attributes:
        dispatcher: Its dispatcher's number.
        epoch: Start of the dispatcher's process.
        sequence: Its place in the order.
        cached_tokens: Tokens of its prompt that the dispatcher expects in the rank's prefix cache.
    """

    dispatcher: int
    epoch: int
    sequence: int
    cached_tokens: int = 0


def attach(headers: Mapping[str, str] | None, dispatched: Dispatched) -> dict[str, str]:
    """The headers of a request with its dispatch among them."""
    return {**(headers or {}), HEADER: " ".join(map(str, dispatched))}


def detach(
    headers: Mapping[str, str] | None,
) -> tuple[Mapping[str, str] | None, Dispatched | None]:
    """The headers that others gave a request, and its dispatch, or None if dpbal gave it none."""
    if headers is None or HEADER not in headers:
        return headers, None
    rest = {key: value for key, value in headers.items() if key != HEADER}
    return rest or None, Dispatched(*map(int, headers[HEADER].split()))


def acknowledge(
    dispatched: Dispatched, received_epoch: np.ndarray, received_sequence: np.ndarray
) -> None:
    """Note in a rank's row of the acknowledgement table that a request has been received.

    Args:
        dispatched: What was received; of a dispatcher that the table does not know, nothing is
            noted, and its ledger keeps the request until it ends.
        received_epoch: ``int64[dispatchers]``.
        received_sequence: ``int64[dispatchers]``.
    """
    number, epoch, sequence, _ = dispatched
    if not 0 <= number < len(received_epoch) or epoch < received_epoch[number]:
        return
    if epoch > received_epoch[number]:
        received_epoch[number] = epoch
        received_sequence[number] = 0
    received_sequence[number] = max(received_sequence[number], sequence)
