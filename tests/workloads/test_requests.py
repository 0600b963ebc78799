from __future__ import annotations

import numpy as np
import pytest

from dpbal.errors import WorkloadError
from dpbal.workloads import Requests


def requests(**columns: np.ndarray | None) -> Requests:
    defaults = {
        "arrival_s": np.array([1.0, 2.0, 4.0]),
        "prompt_tokens": np.array([1100, 20, 600]),
        "output_tokens": np.array([1, 2, 3]),
        "block_hashes": np.array([5, 6, 5]),
        "hash_offsets": np.array([0, 2, 2, 3]),
        "session": np.array([0, -1, 1]),
        "pinned_rank": np.array([-1, 2, -1]),
    }
    return Requests(**{**defaults, **columns})  # type: ignore[arg-type]


def test_a_part_keeps_its_own_hashes_and_starts_at_zero() -> None:
    first, second = requests().part(1, 3)
    assert [first.arrival_s, second.arrival_s] == [0.0, 2.0]
    assert first.block_hashes is not None
    assert second.block_hashes is not None
    assert [first.block_hashes.tolist(), second.block_hashes.tolist()] == [[], [5]]
    assert [first.session, second.session] == [None, 1]
    assert [first.pinned_rank, second.pinned_rank] == [2, None]


def test_requests_that_all_come_at_once_have_no_rate_to_change() -> None:
    at_once = requests(arrival_s=np.array([3.0, 3.0, 3.0])).at_rate(10.0)
    assert at_once.arrival_s.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "column",
    [
        {"arrival_s": np.array([1.0, 3.0, 2.0])},
        {"arrival_s": np.array([1.0, np.nan, 2.0])},
        {"arrival_s": np.zeros(0)},
        {"prompt_tokens": np.array([5, 0, 5])},
        {"output_tokens": np.array([5, 5, -1])},
        {"prompt_tokens": np.array([5, 2**31, 5])},
        {"output_tokens": np.array([5, 5, 2**40])},
        {"hash_offsets": np.array([0, 1, 1, 2])},
    ],
)
def test_refuses_columns_that_make_no_sense(column: dict[str, np.ndarray]) -> None:
    with pytest.raises(WorkloadError):
        requests(**column)
