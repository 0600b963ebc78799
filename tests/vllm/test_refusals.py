"""A server that dpbal cannot balance is refused before its engines start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dpbal.backends.vllm.settings import Settings
from dpbal.budgets import BUDGETS
from dpbal.errors import ConfigError
from dpbal.modes import GroupKind
from tests.vllm.settings import FOLLOWING, Serve, config


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        ({"enable_elastic_ep": True}, "leave out --enable-elastic-ep"),
        ({"data_parallel_external_lb": True}, "leave out --data-parallel-external-lb"),
        ({"data_parallel_size": 1}, "over 1 rank; type --data-parallel-size N"),
        ({"data_parallel_size": 4}, "the ranks of one host, and 2 of 4 are on this one; .*zmq"),
        (
            {
                "data_parallel_size": 6,
                "data_parallel_size_local": 3,
                "data_parallel_hybrid_lb": True,
            },
            "vLLM was asked for 3 ranks of its own here; set group.ranks to 3",
        ),
        (
            {"data_parallel_size": 3, "data_parallel_size_local": 3},
            "group.ranks is 2, but vLLM was asked for 3 ranks; set group.ranks to 3",
        ),
    ],
)
def test_servers_that_dpbal_cannot_balance_are_refused(
    serve: Serve, parallel: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        serve(Settings(config()), **parallel)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"transport": {"name": "local"}},
            "'local' exists in the simulator only; .*type transport=.*shm",
        ),
        (
            {"transport": {"name": "gather"}},
            "ranks of an independent group step alone; type transport=.*shm.*group.kind=lockstep",
        ),
        ({"kind": GroupKind.lockstep}, "ranks of this model independently; .*to independent"),
    ],
)
def test_configs_that_do_not_go_with_the_server_are_refused(
    serve: Serve, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        serve(Settings(config(**changes)))


def test_a_mixture_of_experts_is_no_independent_group(serve: Serve) -> None:
    message = "steps the ranks of this model in lockstep; set group.kind to lockstep"
    with pytest.raises(ConfigError, match=message):
        serve(Settings(config()), GroupKind.lockstep)


TWO_HOSTS: dict[str, Any] = {
    "transport": {"name": "zmq", "hosts": ["127.0.0.1", "127.0.0.2"], "port": 20_000}
}


@pytest.mark.parametrize(
    ("kind", "changes", "processes", "message"),
    [
        (
            GroupKind.independent,
            {},
            2,
            "2 API servers here and group.dispatchers is 1, .*--api-server-count 1, or set "
            "group.dispatchers to 2 on all hosts",
        ),
        (GroupKind.independent, FOLLOWING, 1, "2 of 4 are on this one; type indexer=own_record"),
        (GroupKind.lockstep, {}, 1, "wait for each other on one host; .*group.kind=independent"),
    ],
)
def test_what_reaches_one_host_is_refused_on_several(
    serve: Serve, kind: GroupKind, changes: dict[str, Any], processes: int, message: str
) -> None:
    settings = Settings(config(kind, 4, **changes, **TWO_HOSTS))
    with pytest.raises(ConfigError, match=message):
        serve(settings, kind, data_parallel_size=4, _api_process_count=processes)


def test_front_ends_without_a_rank_beside_them_are_refused() -> None:
    from dpbal.backends.vllm.launch import coordinating

    parallel = SimpleNamespace(data_parallel_size_local=0)
    with pytest.raises(ConfigError, match="type --data-parallel-size-local 1 or more"):
        coordinating(lambda *_: None)(None, parallel)


@pytest.mark.parametrize(
    ("indexer", "caching", "message"),
    [
        ({"name": "oracle"}, True, "simulator only; .*type indexer=kv_events or .*own_record"),
        ({"name": "kv_events", "delay_s": 0.5}, True, "type indexer.delay_s=0"),
        ({"name": "kv_events"}, False, "leave out --no-enable-prefix-caching"),
    ],
)
def test_indexes_that_the_server_cannot_keep_are_refused(
    serve: Serve, indexer: dict[str, Any], caching: bool, message: str
) -> None:
    changes = {**FOLLOWING, "indexer": indexer}
    with pytest.raises(ConfigError, match=message):
        serve(Settings(config(**changes)), cache={"enable_prefix_caching": caching})
    changes.update(balancer={"name": "minimum_tokens"})  # which does not ask what ranks hold
    serve(Settings(config(**changes)), cache={"enable_prefix_caching": caching})


def test_blocks_that_gpus_share_are_not_followed(serve: Serve) -> None:
    sharded = {"decode_context_parallel_size": 2}
    with pytest.raises(ConfigError, match="--decode-context-parallel-size, or type indexer=own_"):
        serve(Settings(config(**FOLLOWING)), **sharded)
    serve(Settings(config(**{**FOLLOWING, "indexer": {"name": "own_record"}})), **sharded)


LEVEL = {"name": "level"}
INTERVAL = "leave out --prefill-schedule-interval"


@pytest.mark.parametrize(
    ("kind", "budget", "scheduler", "message"),
    [
        (GroupKind.independent, {"name": "fixed"}, {"prefill_schedule_interval": 2}, INTERVAL),
        (GroupKind.lockstep, LEVEL, {"prefill_schedule_interval": 2}, INTERVAL),
        (GroupKind.lockstep, LEVEL, {"enable_chunked_prefill": False}, "--no-enable-chunked-pref"),
        (
            GroupKind.lockstep,
            LEVEL,
            {"disable_chunked_mm_input": True},
            "--disable-chunked-mm-input",
        ),
        (GroupKind.lockstep, {"name": "aligned", "ranks": 3}, {}, "3 ranks, but the group has 2"),
    ],
)
def test_budgets_that_the_server_cannot_keep_to_are_refused(
    serve: Serve,
    kind: GroupKind,
    budget: dict[str, Any],
    scheduler: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        serve(Settings(config(kind, budget=budget)), kind, scheduler=scheduler)


def test_prompts_that_an_encoder_takes_whole_are_not_cut(serve: Serve) -> None:
    encodes = {"is_encoder_decoder": True}
    kind = GroupKind.lockstep
    with pytest.raises(ConfigError, match="encoder takes a prompt whole; type budget=fixed"):
        serve(Settings(config(kind, budget=LEVEL)), kind, model_config=encodes)
    serve(Settings(config(kind)), kind, model_config=encodes)


@pytest.mark.parametrize("name", BUDGETS)
@pytest.mark.parametrize("kind", GroupKind)
def test_every_budget_is_taken(serve: Serve, kind: GroupKind, name: str) -> None:
    serve(Settings(config(kind, budget={"name": name})), kind)


def test_vllms_own_prefill_interval_is_taken_where_ranks_step_together(serve: Serve) -> None:
    served = serve(
        Settings(config(GroupKind.lockstep)),
        GroupKind.lockstep,
        scheduler={"prefill_schedule_interval": 3},
    )
    assert served.scheduler_config.prefill_schedule_interval == 3


def test_the_rust_front_end_is_refused(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(ConfigError, match="unset VLLM_USE_RUST_FRONTEND"):
        serve(Settings(config()))
