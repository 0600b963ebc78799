from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from dpbal.errors import ConfigError
from dpbal.workloads import WORKLOADS, Requests, Synthetic
from dpbal.workloads.lengths import LengthPart, Lengths

CONF = Path(__file__).parents[2] / "conf" / "workload"


def preset(name: str, **params: Any) -> Requests:
    loaded = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(loaded, dict)
    merged = {str(key): value for key, value in loaded.items()} | params
    return WORKLOADS.build(str(merged.pop("name")), merged).generate(seed=5)


def summary(tokens: np.ndarray) -> list[float]:
    return [float(tokens.mean()), *np.percentile(tokens, [50, 90, 99]).tolist()]


def seen_before(requests: Requests) -> float:
    """Share of the blocks that an earlier prompt held."""
    return 1 - len(np.unique(requests.block_hashes)) / len(requests.block_hashes)


@pytest.mark.parametrize(
    ("name", "prompt", "output"),
    [
        ("conv_like", [1155, 1020, 2735, 4142], [211, 129, 424, 601]),
        ("code_like", [2048, 1469, 5188, 7436], [27.9, 13, 55, 252]),
        ("mooncake_like", [12035, 6909, 27367, 85400], [343, 350, 597, 1119]),
    ],
)
def test_preset_has_the_lengths_of_its_trace(
    name: str, prompt: list[float], output: list[float]
) -> None:
    requests = preset(name, requests=40_000)
    assert summary(requests.prompt_tokens) == pytest.approx(prompt, rel=0.1)
    assert summary(requests.output_tokens) == pytest.approx(output, rel=0.1)


def test_mooncake_like_shares_blocks_as_its_trace() -> None:
    assert seen_before(preset("mooncake_like")) == pytest.approx(0.338, abs=0.03)
    assert seen_before(preset("mooncake_like", requests=12_031)) == pytest.approx(0.382, abs=0.02)


def test_reasoning_has_the_means_of_its_lognormals() -> None:
    requests = preset("reasoning", requests=100_000)
    assert requests.prompt_tokens.mean() == pytest.approx(0.96 * 900 + 0.04 * 13500, rel=0.03)
    assert requests.output_tokens.mean() == pytest.approx(0.7 * 700 + 0.3 * 3300, rel=0.02)
    is_long = requests.prompt_tokens > 8000
    assert is_long.mean() == pytest.approx(0.04, rel=0.1)
    assert np.median(requests.prompt_tokens[~is_long]) == pytest.approx(
        900 * np.exp(-0.32), rel=0.03
    )


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gaps_have_the_coefficient_of_variation(cv: float) -> None:
    requests = Synthetic(requests=100_000, gap_cv=cv).generate(seed=1)
    gaps_s = np.diff(requests.arrival_s)
    assert gaps_s.mean() == pytest.approx(1.0, rel=0.04)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(cv, rel=0.05)


def test_counts_of_the_default_arrivals_are_poisson() -> None:
    arrival_s = Synthetic(requests=100_000).generate(seed=1).arrival_s
    counts = np.bincount((arrival_s // 20).astype(int))[:-1]
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.1)


def test_no_variation_is_a_clock() -> None:
    assert Synthetic(requests=4, gap_cv=0).generate(seed=1).arrival_s.tolist() == [0, 1, 2, 3]


def test_bursts_arrive_together_at_the_same_mean_rate() -> None:
    requests = Synthetic(requests=50_005, burst_size=10).generate(seed=1)
    times, sizes = np.unique(requests.arrival_s, return_counts=True)
    assert len(requests) == 50_005
    assert sizes[:-1].tolist() == [10] * 5000
    assert sizes[-1] == 5
    assert np.diff(times).std() / np.diff(times).mean() == pytest.approx(1.0, rel=0.05)
    assert requests.rate == pytest.approx(1.0, rel=0.05)


def test_changing_one_part_leaves_the_others() -> None:
    base = Synthetic().generate(seed=9)
    bursty = Synthetic(gap_cv=4, burst_size=3).generate(seed=9)
    longer = Synthetic(output=Lengths([LengthPart(mean_tokens=900)])).generate(seed=9)
    assert bursty.prompt_tokens.tolist() == base.prompt_tokens.tolist()
    assert bursty.output_tokens.tolist() == base.output_tokens.tolist()
    assert bursty.arrival_s.tolist() != base.arrival_s.tolist()
    assert longer.arrival_s.tolist() == base.arrival_s.tolist()
    assert longer.prompt_tokens.tolist() == base.prompt_tokens.tolist()


def test_prompts_outputs_and_gaps_are_independent() -> None:
    requests = Synthetic(requests=20_000).generate(seed=2)
    columns = np.log([requests.prompt_tokens[1:], requests.output_tokens[1:]])
    correlation = np.corrcoef([*columns, np.diff(requests.arrival_s)])
    assert np.abs(correlation - np.eye(3)).max() < 0.03


def test_lengths_without_spread_are_their_mean_and_stay_in_range() -> None:
    fixed = Synthetic(requests=50, prompt=Lengths([LengthPart(mean_tokens=64, sigma=0)]))
    assert set(fixed.generate(seed=0).prompt_tokens.tolist()) == {64}
    narrow = Synthetic(requests=5000, prompt=Lengths(min_tokens=900, max_tokens=1000))
    tokens = narrow.generate(seed=0).prompt_tokens
    assert (tokens.min(), tokens.max()) == (900, 1000)


def test_a_later_turn_extends_what_was_said() -> None:
    requests = preset("mooncake_like", requests=3000)
    assert requests.session is not None
    assert requests.hash_offsets is not None
    last_of: dict[int, int] = {}
    turns = 0
    rows = list(requests)
    for i, session in enumerate(requests.session.tolist()):
        hashes = requests.block_hashes[requests.hash_offsets[i] : requests.hash_offsets[i + 1]]
        assert hashes[0] == 0, "the system prompt is shared by all"
        if session in last_of:
            turns += 1
            before = rows[last_of[session]]
            said = before.prompt_tokens + requests.output_tokens[last_of[session]]
            assert rows[i].prompt_tokens > said
            assert before.block_hashes is not None
            kept = len(before.block_hashes)
            assert hashes[:kept].tolist() == before.block_hashes.tolist()
            new = hashes[kept:].tolist()
        else:
            new = hashes[1:].tolist()
        assert not set(new) & set(requests.block_hashes[: requests.hash_offsets[i]].tolist())
        last_of[session] = i
    assert turns > 500


def test_a_conversation_never_outgrows_the_longest_prompt() -> None:
    params = {"requests": 2000, "follow_up_share": 1.0, "turn_gap_requests": 1.0}
    requests = preset("mooncake_like", **params)
    assert requests.prompt_tokens.max() <= 126_195


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("synthetic", {"requests": None}, "add workload.requests=4000"),
        ("synthetic", {"load": None}, "add workload.load=0.85 or workload.rate=10"),
        ("synthetic", {"gap_cv": -1}, "gap_cv must be 0 or from 0.001 to 1000, got -1.0"),
        ("synthetic", {"burst_size": 0}, "burst_size must be at least 1, got 0"),
        ("synthetic", {"prompt": {"parts": []}}, "at least one part"),
        ("synthetic", {"prompt": {"min_tokens": 0}}, "1 <= min_tokens <= max_tokens"),
        (
            "synthetic",
            {"output": {"parts": [{"sigma": -1}]}},
            "sigma must be from 0 to 10",
        ),
        ("synthetic", {"output": {"parts": [{"share": 0}]}}, "share must be positive"),
        ("synthetic", {"output": {"parts": [{"mean_tokens": 0}]}}, "mean_tokens must be positive"),
        ("conversations", {"follow_up_share": 1.5}, "from 0 to 1, got 1.5"),
        ("conversations", {"turn_gap_requests": 0}, "turn_gap_requests must be positive"),
        ("conversations", {"hash_block_tokens": 0}, "hash_block_tokens must be at least 1"),
        ("conversations", {"shared_prefix_tokens": -1}, "must be from 0 to 2147483647, got -1"),
    ],
)
def test_refuses_in_one_line(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        WORKLOADS.build(name, params)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
