"""A front end hashes what can be looked up, says what it expects, and hears what others send."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dpbal.backends.vllm import plugin
from dpbal.backends.vllm.front_end.front_end import FrontEnd
from dpbal.backends.vllm.front_end.indexing import load
from dpbal.backends.vllm.front_end.prefixes import Prompt
from dpbal.backends.vllm.settings import EVENTS, Settings
from dpbal.core import Request, View
from dpbal.indexers import INDEXERS
from tests.vllm.settings import FOLLOWING, Serve, config

TOKENS = list(range(20, 180))
BLOCK = 16


def asked(**changes: Any) -> Any:
    """What vLLM's front end hands on."""
    fields: dict[str, Any] = {
        "prompt_token_ids": TOKENS,
        "prompt_embeds": None,
        "mm_features": None,
        "sampling_params": None,  # of a request that the engine rejects
        "pooling_params": None,
        "lora_request": None,
        "cache_salt": None,
    }
    return SimpleNamespace(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "block_tokens"),
    [
        ({"mm_features": ["an image"]}, BLOCK),
        ({"prompt_embeds": np.zeros((160, 4))}, BLOCK),
        ({"prompt_embeds": np.zeros((160, 4)), "prompt_token_ids": None}, BLOCK),
        ({"sampling_params": SimpleNamespace(skip_reading_prefix_cache=True)}, BLOCK),
        ({}, None),
    ],
    ids=["an image", "embeddings beside tokens", "embeddings", "to be computed", "no cache"],
)
def test_a_prompt_that_cannot_be_looked_up_has_its_length_and_no_hashes(
    changes: dict[str, Any], block_tokens: int | None
) -> None:
    prompt = Prompt.of(asked(**changes), block_tokens)
    assert prompt.tokens == 160
    assert prompt.block_hashes() is None


def test_only_equal_beginnings_have_equal_hashes() -> None:
    own = Prompt.of(asked(), BLOCK).block_hashes()
    other = Prompt.of(asked(prompt_token_ids=[*TOKENS[:100], 7, *TOKENS[101:]]), BLOCK)
    hashes = other.block_hashes()
    assert hashes is not None
    salted = Prompt.of(asked(cache_salt="a"), BLOCK).block_hashes()
    adapted = Prompt.of(asked(lora_request=SimpleNamespace(lora_name="a")), BLOCK).block_hashes()
    assert own is not None
    assert salted is not None
    assert adapted is not None
    assert (own == hashes).tolist() == [True] * 6 + [False] * 4
    assert len({*own.tolist(), *salted.tolist(), *adapted.tolist()}) == 30


RECORDED = {**FOLLOWING, "indexer": {"name": "own_record"}}
SHARED = {**FOLLOWING, "indexer": {"name": "shared_record"}}


def front_ends(serve: Serve, processes: int, nodes: dict[str, Any]) -> list[FrontEnd]:
    settings = Settings(config(**nodes))
    serve(settings, _api_process_count=processes)
    return [plugin._front_end(settings, 2, number, processes) for number in range(processes)]


def test_what_is_expected_in_the_cache_travels_with_the_request(serve: Serve) -> None:
    (made,) = front_ends(serve, 1, RECORDED)
    prompt = Prompt.of(asked(), BLOCK)
    first, dispatched = made.dispatch("1", prompt)
    assert dispatched.cached_tokens == 0
    second, dispatched = made.dispatch("2", prompt)
    assert (second.rank, dispatched.cached_tokens) == (first.rank, 159)  # the last is computed
    assert made.dispatchers[0].ledger.in_flight.prefill_tokens.sum() == 161
    made.cache_reset(first.rank)
    assert made.dispatch("3", prompt)[1].cached_tokens == 0
    made.close()


def test_a_reset_is_known_of_ranks_that_have_answered_though_one_fails(serve: Serve) -> None:
    from dpbal.backends.vllm.front_end.client import balanced_client

    (made,) = front_ends(serve, 1, RECORDED)
    prompt = Prompt.of(asked(), BLOCK)
    for number, rank in enumerate((0, 0, 1)):
        made.dispatch(str(number), prompt, pinned_rank=rank)
    kind: Any = balanced_client(lambda *_: made)
    client = kind.__new__(kind)
    client.front_end, client.core_engines = made, [b"0", b"1"]

    async def answer(method: str, *_: bool, engine: bytes) -> bool:
        if engine == b"1":
            raise RuntimeError("cannot")
        return method == "reset_prefix_cache"

    client._call_utility_async = answer
    with pytest.raises(RuntimeError, match="cannot"):
        asyncio.run(client.reset_prefix_cache_async())
    cached = [made.dispatch(f"+{r}", prompt, pinned_rank=r)[1].cached_tokens for r in (0, 1)]
    assert cached == [0, 159]
    made.close()


def test_a_reset_leaves_what_events_tell_to_them(serve: Serve) -> None:
    (made,) = front_ends(serve, 1, FOLLOWING)
    prompt = Prompt.of(asked(), BLOCK)
    made.dispatch("1", prompt, pinned_rank=1)  # which is on its way
    made.cache_reset(1)
    assert made.dispatch("2", prompt, pinned_rank=1)[1].cached_tokens == 159
    made.close()


@pytest.mark.parametrize(
    ("balancer", "indexer", "expected"),
    [
        ("consistent_hash", "none", 10),
        ("marginal_prefill", "own_record", 10),
        ("marginal_prefill", "none", None),
        ("minimum_tokens", "own_record", None),
    ],
)
def test_prompts_are_hashed_only_for_those_who_read_it(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    balancer: str,
    indexer: str,
    expected: int | None,
) -> None:
    seen: list[np.ndarray | None] = []

    def choose(request: Request, view: View) -> int:
        seen.append(request.block_hashes)
        return 0

    nodes = {"balancer": {"name": balancer}, "indexer": {"name": indexer}}
    (made,) = front_ends(serve, 1, {**FOLLOWING, **nodes})
    monkeypatch.setattr(made.dispatchers[0].balancer, "choose", choose)
    made.dispatch("1", Prompt.of(asked(), BLOCK))
    assert [None if hashes is None else len(hashes) for hashes in seen] == [expected]
    made.close()


def test_equal_beginnings_go_to_one_rank_of_the_ring(serve: Serve) -> None:
    nodes = {"balancer": {"name": "consistent_hash"}, "indexer": {"name": "none"}}
    (made,) = front_ends(serve, 1, {**FOLLOWING, **nodes})
    ranks = set()
    for number in range(20):
        tokens = [*TOKENS[:40], *range(number, number + 40)]
        prompt = Prompt.of(asked(prompt_token_ids=tokens), BLOCK)
        ranks.add(made.dispatch(str(number), prompt)[0].rank)
        made.finish(str(number))
    assert len(ranks) == 1
    made.close()


def test_sessions_reach_the_balancer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def choose(request: Request, view: View) -> int:
        seen.append(request.session)
        return 0

    (made,) = front_ends(serve, 1, RECORDED)
    monkeypatch.setattr(made.dispatchers[0].balancer, "choose", choose)
    made.dispatch("1", Prompt(10), session="a talk")
    made.dispatch("2", Prompt(10))
    assert seen == ["a talk", None]
    made.close()


@pytest.mark.parametrize(("nodes", "expected"), [(SHARED, 159), (RECORDED, 0)])
def test_processes_tell_each_other_what_they_send_where(
    serve: Serve, nodes: dict[str, Any], expected: int
) -> None:
    several = front_ends(serve, 3, nodes)
    prompt = Prompt.of(asked(), BLOCK)
    placed, _ = several[0].dispatch("1", prompt)
    for made in several[1:]:
        _, dispatched = made.dispatch("1", prompt, pinned_rank=placed.rank)
        assert dispatched.cached_tokens == expected
    for made in several:
        made.close()


def test_ranks_publish_events_only_where_somebody_listens(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(Settings(config(**FOLLOWING)))
    assert served.kv_events_config.enable_kv_cache_events
    assert served.kv_events_config.publisher == "null"  # nothing on the network
    assert os.environ[EVENTS]
    monkeypatch.setenv(EVENTS, "")
    for nodes in (RECORDED, SHARED, {**FOLLOWING, "balancer": {"name": "minimum_tokens"}}):
        assert serve(Settings(config(**nodes))).kv_events_config is None
    assert not os.environ[EVENTS]


@pytest.mark.parametrize("name", ["own_record", "shared_record", "kv_events"])
def test_loading_what_an_index_is_compiled_from_leaves_it_as_it_was(name: str) -> None:
    indexer = INDEXERS.build(name, {})
    indexer.start(2, 4096)
    load(indexer, 2)
    assert indexer.sizes.tolist() == [0, 0]
    hashes = Prompt.of(asked(), BLOCK).block_hashes()
    request = Request("1", 0.0, 160, block_hashes=hashes, block_tokens=BLOCK)
    indexer.dispatched(request, 1, 0.0)
    assert indexer.match(request).tolist() == [0, 10]


def test_processes_that_look_nothing_up_compile_nothing() -> None:
    code = (
        "import sys, dpbal.backends.vllm.front_end.front_end, dpbal.backends.vllm.launch; "
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
