"""What every profile must state of itself, and that its numbers are those of its source."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import dpbal
from dpbal.parts import build_step_time
from dpbal.step_time import COSTS, StepTime

FILES = sorted((Path(__file__).parents[2] / "conf" / "profile").glob("*.yaml"))
CONSTANTS = [name for name in COSTS.names or () if name != "pad_to_largest"]


@cache
def profile(name: str) -> StepTime:
    return build_step_time(dpbal.compose(f"profile={name}").profile)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_states_every_field(file: Path) -> None:
    fields = [field.name for field in dataclasses.fields(StepTime)]
    assert list(OmegaConf.load(file)) == fields


@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_says_of_each_constant_where_it_comes_from(name: str) -> None:
    made = profile(name)
    assert set(made.evidence) == {*CONSTANTS, "kv_capacity_tokens"}
    for evidence in made.evidence.values():
        assert evidence.split(":")[0] in ("measured", "fitted", "guessed", "derived")
    for words in (made.model, made.device, made.source, made.error):
        assert words not in ("", "none", "unknown", "unnamed")


@pytest.mark.parametrize(
    ("name", "fit"),
    [  # us: a, b, c, d, e on the square of a fresh prompt
        ("llama31_8b_h100", (6323, 12.69, 11.17, 0.04137, 0.00153)),
        ("llama31_8b_h200", (4866, 13.33, 12.08, 0.02978, 0.00150)),
        ("llama31_70b_tp4_h100", (15150, 44.51, 32.21, 0.02713, 0.00332)),
        ("llama31_70b_tp4_h200", (12050, 46.15, 32.88, 0.01836, 0.00275)),
    ],
)
def test_steps_of_replicas_last_as_long_as_the_fit_says(name: str, fit: tuple[float, ...]) -> None:
    a, b, c, d, e = fit
    step_time = profile(name)

    def step_us(prefill_tokens: int, decode_seqs: int, kv_tokens: int) -> float:
        pairs = prefill_tokens**2 / 2
        return 1e6 * step_time.local_s(prefill_tokens, decode_seqs, kv_tokens, pairs)

    assert step_us(4000, 0, 0) == pytest.approx(a + b * 4000 + e * 4000**2, rel=1e-3)
    assert step_us(0, 100, 200_000) == pytest.approx(a + c * 100 + d * 200_000, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "device_gb", "devices", "weights_gb", "other_gb", "bytes_per_token"),
    [
        ("llama31_8b_h100", 85.52, 1, 16.06, 3, 2 * 32 * 8 * 128 * 2),
        ("llama31_8b_h200", 150.75, 1, 16.06, 3, 2 * 32 * 8 * 128 * 2),
        ("llama31_70b_tp4_h100", 85.52, 4, 141.1, 12, 2 * 80 * 8 * 128 * 2),
        ("llama31_70b_tp4_h200", 150.75, 4, 141.1, 12, 2 * 80 * 8 * 128 * 2),
        ("deepseek_v3_h200", 150.75, 1, 100.7, 6, (512 + 64) * 61 * 2),
        ("deepseek_r1_gb200", 198.67, 1, 75, 10, (512 + 64) * 61),
    ],
)
def test_kv_capacity_is_the_memory_that_is_left(
    name: str,
    device_gb: float,
    devices: int,
    weights_gb: float,
    other_gb: float,
    bytes_per_token: int,
) -> None:
    left_gb = 0.92 * device_gb * devices - weights_gb - other_gb
    tokens = left_gb * 1e9 / bytes_per_token
    assert profile(name).kv_capacity_tokens == pytest.approx(tokens, rel=0.02)


@pytest.mark.parametrize(
    ("prefill", "decode", "local_ms", "common_ms"),
    [  # of one rank, as its operators' times add up: prompts x length, sequences x context
        ((1, 2048), (0, 0), 107.2, 481.9),
        ((2, 4096), (0, 0), 432.5, 1716.8),
        ((0, 0), (64, 2048), 15.3, 33.3),
        ((0, 0), (256, 2048), 34.0, 73.2),
        ((1, 1024), (256, 1024), 82.0, 309.0),
    ],
)
def test_deepseek_v3_is_near_the_sum_of_its_operators(
    prefill: tuple[int, int], decode: tuple[int, int], local_ms: float, common_ms: float
) -> None:
    made = profile("deepseek_v3_h200")
    (prompts, length), (sequences, context) = prefill, decode
    tokens = prompts * length + sequences
    local_s = made.local_s(
        prompts * length, sequences, sequences * context, prompts * length**2 / 2
    )
    common_s = made.common_s([tokens] * 8, is_mixed=False)
    assert 1e3 * local_s == pytest.approx(local_ms, rel=0.25)
    assert 1e3 * common_s == pytest.approx(common_ms, rel=0.25)
    assert 1e3 * (local_s + common_s) == pytest.approx(local_ms + common_ms, rel=0.2)


def test_lds_prototype_has_the_constants_of_the_study() -> None:
    made = profile("lds_prototype")
    assert (made.fixed_s, made.common_fixed_s) == (0.006, 0.02)
    assert (made.prefill_s_per_token, made.common_s_per_token) == (70e-6, 70e-6)
    assert (made.decode_s_per_seq, made.kv_s_per_token) == (20e-6, 30e-9)
    assert made.attention_s_per_pair == 10e-9
    assert made.kv_capacity_tokens == 500_000


def test_only_a_group_that_shares_its_experts_has_a_common_part() -> None:
    common = {file.stem for file in FILES if profile(file.stem).common_s_per_token > 0}
    assert common == {"deepseek_r1_gb200", "deepseek_v3_h200", "lds_prototype"}
