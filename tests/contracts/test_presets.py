"""What each preset is put together from, and that a run may still choose every part."""

from __future__ import annotations

from typing import Any

import pytest

import dpbal
from dpbal.modes import LedgerMode
from dpbal.parts import build

SUM_OF_TOKENS = {"name": "sum", "terms": {"get_load": 1.0, "in_flight": 1.0}}
ALIGNED = {"name": "aligned", "ranks": None, "timeout_iters": 50, "batching_wait_iters": 10}


def test_sglang_7379() -> None:
    config = dpbal.compose("preset=sglang_7379")
    assert config.balancer == {"name": "minimum_tokens", "ties": "first", "miss_weight": 0.0}
    assert config.signal == SUM_OF_TOKENS
    assert config.ledger.mode is LedgerMode.acknowledge
    assert build("transport", config.transport).timing.interval_steps == 40
    assert config.budget["name"] == "fixed"


def test_sglang_0_5_23() -> None:
    config = dpbal.compose("preset=sglang_0_5_23")
    assert config.balancer == {"name": "total_tokens", "ties": "first"}
    assert config.signal == SUM_OF_TOKENS
    assert config.ledger.mode is LedgerMode.overwrite
    timing = build("transport", config.transport).timing
    assert (timing.interval_steps, timing.publish_on_prefill, timing.interval_s) == (15, True, 0.02)
    assert config.budget["name"] == "fixed"


def test_vllm_0_32() -> None:
    config = dpbal.compose("preset=vllm_0_32")
    assert config.balancer == {"name": "vllm", "kv_weight": 6.0, "kv_threshold": 0.5}
    assert config.ledger.mode is LedgerMode.overwrite
    assert build("transport", config.transport).timing.interval_s == 0.1
    assert config.budget["name"] == "fixed"


def test_sglang_router() -> None:
    config = dpbal.compose("preset=sglang_router")
    assert config.balancer == {
        "name": "cache_aware",
        "ties": "first",
        "cache_threshold": 0.3,
        "balance_abs": 64,
        "balance_rel": 1.5,
        "on_miss": "fewest_requests",
    }
    assert config.indexer["name"] == "own_record"
    assert not build("balancer", config.balancer).uses_reports
    assert config.budget["name"] == "fixed"


def test_dynamo() -> None:
    config = dpbal.compose("preset=dynamo")
    assert config.balancer["name"] == "dynamo"
    assert config.indexer["name"] == "kv_events"
    assert config.transport == {"name": "local"}
    assert config.ledger.mode is LedgerMode.acknowledge
    assert config.budget["name"] == "fixed"


def test_llm_d() -> None:
    config = dpbal.compose("preset=llm_d")
    assert config.balancer["name"] == "llm_d"
    assert config.indexer["name"] == "own_record"
    assert build("transport", config.transport).timing.interval_s == 0.05
    assert config.ledger.mode is LedgerMode.acknowledge
    assert config.budget["name"] == "fixed"


@pytest.mark.parametrize(
    ("arguments", "group", "expected"),
    [
        (["preset=sglang_7379", "balancer=random"], "balancer", {"name": "random"}),
        (["preset=sglang_7379", "signal=requests"], "signal", {"name": "requests"}),
        (["preset=sglang_0_5_23", "transport=local"], "transport", {"name": "local"}),
        (["preset=vllm_0_32", "budget=aligned"], "budget", ALIGNED),
        (["preset=dynamo", "indexer=oracle"], "indexer", {"name": "oracle"}),
        (["balancer=least_prefill", "signal=requests"], "signal", {"name": "requests"}),
        (["preset=sglang_7379", "balancer=least_prefill"], "signal", SUM_OF_TOKENS),
    ],
)
def test_what_is_typed_wins_then_the_preset_then_a_balancers_own_signal(
    arguments: list[str], group: str, expected: dict[str, Any]
) -> None:
    assert getattr(dpbal.compose(*arguments), group) == expected


def test_a_typed_value_wins_over_a_preset() -> None:
    config = dpbal.compose(
        "preset=sglang_0_5_23", "ledger.mode=acknowledge", "balancer.ties=rotate"
    )
    assert config.ledger.mode is LedgerMode.acknowledge
    assert config.balancer["ties"] == "rotate"


@pytest.mark.parametrize(
    ("balancer", "terms"),
    [
        ("minimum_tokens", ["holding_tokens", "in_flight"]),
        ("fewest_requests", ["requests", "in_flight"]),
        ("power_of_two", ["requests", "in_flight"]),
        ("least_prefill", ["prefill_work", "in_flight", "decode_work"]),
        ("total_tokens", ["get_load", "in_flight"]),
        ("marginal_prefill", ["prefill_work", "in_flight", "decode_load"]),
        ("tensorrt_llm", ["holding_tokens", "in_flight"]),
        ("session_affinity", ["requests", "in_flight"]),
    ],
)
def test_a_balancer_brings_its_own_signal(balancer: str, terms: list[str]) -> None:
    assert list(dpbal.compose(f"balancer={balancer}").signal["terms"]) == terms
