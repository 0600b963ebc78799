"""Prompts of which many begin alike, and prompts of which none do."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from dpbal.errors import ConfigError
from dpbal.workloads import WORKLOADS, HotPrefix, Requests, Synthetic

CONF = Path(__file__).parents[2] / "conf" / "workload"


def preset(name: str, **params: Any) -> Requests:
    loaded = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(loaded, dict)
    merged = {str(key): value for key, value in loaded.items()} | params
    return WORKLOADS.build(str(merged.pop("name")), merged).generate(seed=5)


def chains(requests: Requests) -> list[list[int]]:
    """The hashes of each prompt."""
    assert requests.hash_offsets is not None
    flat = requests.block_hashes.tolist()
    return [flat[i:j] for i, j in pairwise(requests.hash_offsets.tolist())]


def test_most_begin_with_the_hot_prefix_and_nothing_else_recurs() -> None:
    requests = preset("hot_prefix")
    own = chains(requests)
    hot = [chain[:16] == list(range(16)) for chain in own]
    assert np.mean(hot) == pytest.approx(0.9, abs=0.015)
    rest = [key for chain, is_hot in zip(own, hot, strict=True) for key in chain[16 * is_hot :]]
    assert len(set(rest)) == len(rest)
    assert not set(rest) & set(range(16))
    assert [len(chain) for chain in own] == (requests.prompt_tokens // 512).tolist()
    tails = requests.prompt_tokens - 8192
    assert tails.min() >= 1
    assert tails.mean() == pytest.approx(1000, rel=0.05)


def test_several_prefixes_are_as_likely_and_share_nothing() -> None:
    own = chains(HotPrefix(requests=20_000, share=1.0, prefixes=4).generate(seed=1))
    firsts, counts = np.unique([chain[0] for chain in own], return_counts=True)
    assert counts.tolist() == pytest.approx([5000] * 4, rel=0.05)
    for first in firsts.tolist():
        (prefix,) = {tuple(chain[:16]) for chain in own if chain[0] == first}
        assert prefix == tuple(range(first, first + 16))


def test_a_prefix_that_ends_in_a_block_shares_only_whole_ones() -> None:
    prompts = HotPrefix(requests=50, share=1.0, prefix_tokens=1000).generate(seed=1)
    own = chains(prompts)
    assert {chain[0] for chain in own} == {0}
    seconds = [chain[1] for chain in own if len(chain) > 1]
    assert len(set(seconds)) == len(seconds) > 10


def test_distinct_prompts_have_one_length_and_hashes_that_never_recur() -> None:
    requests = preset("distinct_prompts")
    assert set(requests.prompt_tokens.tolist()) == {9216}
    assert len(np.unique(requests.block_hashes)) == len(requests.block_hashes) == 4000 * 18


def test_the_share_changes_nothing_else() -> None:
    cold = HotPrefix(requests=1000, share=0.0).generate(seed=3)
    hot = HotPrefix(requests=1000, share=1.0).generate(seed=3)
    plain = Synthetic(requests=1000).generate(seed=3)
    for requests in (cold, hot):
        assert requests.arrival_s.tolist() == plain.arrival_s.tolist()
        assert requests.output_tokens.tolist() == plain.output_tokens.tolist()
        assert requests.prompt_tokens.tolist() == (plain.prompt_tokens + 8192).tolist()
    warm = HotPrefix(requests=1000, share=0.5).generate(seed=3)
    warmer = HotPrefix(requests=1000, share=0.6).generate(seed=3)
    shared = [{k for k, chain in enumerate(chains(r)) if chain[0] == 0} for r in (warm, warmer)]
    assert shared[0] < shared[1]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"share": 1.5}, "share must be from 0 to 1, got 1.5"),
        ({"prefixes": 0}, "prefixes must be at least 1, got 0"),
        ({"prefix_tokens": 0}, "prefix_tokens must be at least 1, got 0"),
        ({"hash_block_tokens": 0}, "hash_block_tokens must be at least 1, got 0"),
        ({"prefix_tokens": 100}, "prefix_tokens must fill a block of hash_block_tokens=512"),
        ({"prefix_tokens": 2**31 - 1}, "must be at most 2147483647 together"),
    ],
)
def test_refuses_in_one_line(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        WORKLOADS.build("hot_prefix", params)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
