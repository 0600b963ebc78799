"""How far the line of a scheduler's waiting requests could be admitted, compiled."""

from __future__ import annotations

import numpy as np

from dpbal.jit import njit


@njit
def admissible(
    tokens: np.ndarray,
    cached: np.ndarray,
    arrivals_s: np.ndarray,
    begin: int,
    end: int,
    slots: int,
    free_blocks: int,
    block_size: int,
    now_s: float,
) -> tuple[int, int, int, float, float]:
    """Walk the line until a slot or a KV block is missing.

    Args:
        tokens: ``int64[places]``, 0 where nobody waits any more.
        cached: ``int64[places]``, how many of them are expected in the prefix cache.
        arrivals_s: ``float64[places]``, nan where there has been a first token.
        begin: First place of the line.
        end: Behind its last.
        slots: Free places in the batch.
        free_blocks: KV blocks that nobody holds.
        block_size: Tokens in one.
        now_s: Time.

    Returns:
        The fields of ``line.Admissible``.
    """
    count = 0
    sum_tokens = 0
    squares = 0
    wait_s = 0.0
    oldest_s = np.nan
    place = begin
    while place < end and count < slots:
        size = tokens[place]
        if size > 0:
            free_blocks -= (size + block_size - 1) // block_size
            if free_blocks < 0:
                break
            count += 1
            found = cached[place]
            sum_tokens += size - found
            squares += size * size - found * found
            at_s = arrivals_s[place]
            if not np.isnan(at_s):
                wait_s += now_s - at_s
                if np.isnan(oldest_s):
                    oldest_s = at_s
        place += 1
    while place < end and np.isnan(oldest_s):
        if tokens[place] > 0:
            oldest_s = arrivals_s[place]
        place += 1
    oldest_wait_s = 0.0 if np.isnan(oldest_s) else now_s - oldest_s
    return count, sum_tokens, squares, wait_s, oldest_wait_s
