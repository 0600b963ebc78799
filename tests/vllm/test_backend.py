"""The backend's fields mean the same as the simulator's, and what it cannot do it refuses."""

from __future__ import annotations

from dataclasses import fields

import pytest

from dpbal.backends.vllm.backend import Vllm


def test_its_simulator_has_the_same_engines() -> None:
    backend = Vllm(max_num_batched_tokens=11, max_num_seqs=12, block_size=3, prefix_cache=False)
    simulator = backend.simulator()
    shared = {field.name for field in fields(backend)} & {field.name for field in fields(simulator)}
    assert {name: getattr(simulator, name) for name in shared} == {
        name: getattr(backend, name) for name in shared
    }
    assert {"max_num_batched_tokens", "kv_capacity_tokens", "max_time_s"} <= shared


@pytest.mark.parametrize(("is_async", "lag"), [(False, 1), (True, 2)])
def test_its_simulators_vectors_are_as_late_as_its_own(is_async: bool, lag: int) -> None:
    assert Vllm(async_scheduling=is_async).simulator().vector_lag == lag


@pytest.mark.parametrize(
    ("field", "value"), [("prefill_schedule_interval", 0), ("dilation", 0.0), ("max_num_seqs", 0)]
)
def test_values_outside_their_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be"):
        Vllm(**{field: value})  # type: ignore[arg-type]
