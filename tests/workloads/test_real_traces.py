from __future__ import annotations

import numpy as np
import pytest

from dpbal.workloads import WORKLOADS

pytestmark = pytest.mark.usefixtures("traces")


@pytest.mark.parametrize(
    ("name", "count", "span_s", "rate", "prompt", "output"),
    [
        ("azure_conv", 19_366, 3502, 5.53, 1155, 211),
        ("azure_code", 8_819, 3436, 2.57, 2048, 28),
        ("mooncake_conversation", 12_031, 3537, 3.40, 12_035, 343),
    ],
)
def test_trace_is_as_published(
    name: str, count: int, span_s: float, rate: float, prompt: float, output: float
) -> None:
    requests = WORKLOADS.build(name, {}).generate(seed=0)
    assert len(requests) == count
    assert requests.arrival_s[-1] == pytest.approx(span_s, abs=4)
    assert requests.rate == pytest.approx(rate, abs=0.01)
    assert requests.prompt_tokens.mean() == pytest.approx(prompt, abs=0.5)
    assert requests.output_tokens.mean() == pytest.approx(output, abs=0.5)


@pytest.mark.parametrize(("name", "cv"), [("azure_conv", 1.09), ("azure_code", 13.2)])
def test_gaps_are_as_published(name: str, cv: float) -> None:
    gaps_s = np.diff(WORKLOADS.build(name, {}).generate(seed=0).arrival_s)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(cv, rel=0.01)


def test_mooncake_shares_blocks_as_published() -> None:
    requests = WORKLOADS.build("mooncake_conversation", {}).generate(seed=0)
    assert requests.hash_offsets is not None
    tails = int((requests.prompt_tokens % requests.hash_block_tokens > 0).sum())
    blocks = int((-(-requests.prompt_tokens // requests.hash_block_tokens)).sum())
    assert len(requests.block_hashes) == blocks - tails
    seen_before = 1 - len(np.unique(requests.block_hashes)) / len(requests.block_hashes)
    assert seen_before == pytest.approx(0.382, abs=0.001)


def test_mooncake_raw_arrives_in_bursts_and_spread_does_not() -> None:
    def instants(spread_bins: bool) -> int:
        trace = WORKLOADS.build("mooncake_conversation", {"spread_bins": spread_bins})
        return len(np.unique(trace.generate(seed=0).arrival_s))

    assert instants(False) == 1180
    assert instants(True) == 12_031
