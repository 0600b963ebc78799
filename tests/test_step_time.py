"""The cost model in closed form, and back."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dpbal.step_time import COSTS, StepTime, common_s, local_s

CONSTANTS = {
    "fixed_s": 5e-3,
    "prefill_s_per_token": 70e-6,
    "decode_s_per_seq": 20e-6,
    "kv_s_per_token": 30e-9,
    "attention_s_per_pair": 10e-9,
    "common_fixed_s": 20e-3,
    "common_s_per_token": 80e-6,
    "mixed_penalty_s": 8e-3,
}


def step_time(**changes: float) -> StepTime:
    return StepTime(**(CONSTANTS | changes))  # type: ignore[arg-type]


def test_local_time_is_the_sum_of_its_parts() -> None:
    # a + b P + c D + d KV + e pairs
    expected = 5e-3 + 70e-6 * 1000 + 20e-6 * 64 + 30e-9 * 200_000 + 10e-9 * 3_000_000
    assert step_time().local_s(1000, 64, 200_000, 3_000_000) == pytest.approx(expected, rel=1e-12)


def test_an_idle_rank_takes_no_time() -> None:
    assert step_time().local_s(0, 0, 0, 0) == 0


@pytest.mark.parametrize(
    ("pads", "tokens"),
    [(False, 1000), (True, 8 * 400)],
)
def test_common_time_is_that_of_the_groups_tokens(pads: bool, tokens: int) -> None:
    seconds = common_s(20e-3, 80e-6, 8e-3, pads, 1000, 400, ranks=8, is_mixed=False)
    assert seconds == pytest.approx(20e-3 + 80e-6 * tokens / 8, rel=1e-12)


@pytest.mark.parametrize("pads", [False, True])
def test_a_profile_knows_the_common_time_of_its_group(pads: bool) -> None:
    model = step_time(pad_to_largest=pads)
    tokens = 3 * 900 if pads else 900 + 20 + 0
    seconds = model.common_s([900, 20, 0], is_mixed=True)
    assert seconds == pytest.approx(20e-3 + 80e-6 * tokens / 3 + 8e-3, rel=1e-12)


def test_a_rank_alone_pays_the_common_time_for_its_own_tokens() -> None:
    seconds = step_time(pad_to_largest=True).common_s([500], is_mixed=False)
    assert seconds == pytest.approx(20e-3 + 80e-6 * 500, rel=1e-12)


def test_a_mixed_step_pays_its_penalty() -> None:
    steps = [common_s(20e-3, 80e-6, 8e-3, False, 1000, 400, 8, mixed) for mixed in (False, True)]
    assert steps[1] - steps[0] == pytest.approx(8e-3, rel=1e-12)


def test_prefill_in_chunks_takes_as_long_as_in_one() -> None:
    model = step_time()
    chunks = [(512, 0), (512, 512), (1000, 1024)]
    assert sum(model.prefill_s(*chunk) for chunk in chunks) == pytest.approx(
        model.prefill_s(2024), rel=1e-12
    )


def test_prefill_and_decode_seconds_are_parts_of_the_local_time() -> None:
    model = step_time()
    expected = model.local_s(300, 7, 9000, pairs=300 * (100 + 150))
    assert model.fixed_s + model.prefill_s(300, 100) + model.decode_s(7, 9000) == pytest.approx(
        expected, rel=1e-12
    )


@given(
    tokens=st.integers(0, 200_000),
    context=st.integers(0, 1_000_000),
    per_token=st.floats(1e-7, 1e-3),
    per_pair=st.one_of(st.just(0.0), st.floats(1e-12, 1e-7)),
)
def test_tokens_within_is_the_inverse_of_prefill_s(
    tokens: int, context: int, per_token: float, per_pair: float
) -> None:
    model = step_time(prefill_s_per_token=per_token, attention_s_per_pair=per_pair)
    assert model.tokens_within(model.prefill_s(tokens, context), context) == tokens


@given(
    seconds=st.floats(-1.0, 100.0),
    context=st.integers(0, 1_000_000),
    per_token=st.floats(0, 1e-3),
    per_pair=st.floats(0, 1e-7),
)
def test_tokens_within_is_the_most_that_fits(
    seconds: float, context: int, per_token: float, per_pair: float
) -> None:
    assume(per_token > 1e-9 or per_pair > 1e-14)
    model = step_time(prefill_s_per_token=per_token, attention_s_per_pair=per_pair)
    tokens = model.tokens_within(seconds, context)
    assert tokens >= 0
    assert model.prefill_s(tokens, context) <= max(0.0, seconds) * (1 + 1e-9)
    assert model.prefill_s(tokens + 1, context) > seconds * (1 - 1e-9)


def test_free_prefill_has_no_inverse() -> None:
    model = step_time(prefill_s_per_token=0.0, attention_s_per_pair=0.0)
    with pytest.raises(ValueError, match="prefill costs nothing"):
        model.tokens_within(1.0)


@pytest.mark.parametrize("name", list(CONSTANTS))
def test_negative_constants_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must not be negative, got -1"):
        step_time(**{name: -1.0})


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_constants_without_end_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="kv_s_per_token must be a finite number"):
        step_time(kv_s_per_token=value)


def test_a_rank_without_kv_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="kv_capacity_tokens must be positive, got 0"):
        StepTime(kv_capacity_tokens=0)


def test_the_record_for_compiled_code_has_the_same_constants() -> None:
    record = step_time().costs()
    assert record.dtype == COSTS
    assert {name: float(record[name][0]) for name in CONSTANTS} == CONSTANTS
    assert not record["pad_to_largest"][0]
    a, b, c, d, e = (float(record[name][0]) for name in list(CONSTANTS)[:5])
    assert local_s(a, b, c, d, e, 10, 2, 50, 7) == step_time().local_s(10, 2, 50, 7)
