from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dpbal.calibration.fit import ALL, COMMON, LOCAL, PENALTY, fit
from dpbal.calibration.samples import Samples
from dpbal.errors import ConfigError
from dpbal.step_time import StepTime
from tests.calibration.steps import TRUE, changed, samples, work

WRONG = changed(TRUE, {name: 4 * getattr(TRUE, name) for name in ALL if name != "fixed_s"})
"""A prior that is four times too slow in all but what whole steps cannot tell."""


def seconds(step_time: StepTime, rows: np.ndarray) -> np.ndarray:
    return samples(rows, step_time).step_s


@pytest.mark.parametrize("seed", range(3))
def test_constants_come_back_from_the_parts_of_noisy_steps(seed: int) -> None:
    measured = samples(work(600, 8, seed), noise=0.05, seed=seed + 10, has_local=True)
    found = fit(measured, ALL, StepTime())
    assert not found.kept
    for name in ALL:
        assert found.values[name] == pytest.approx(getattr(TRUE, name), rel=0.1), name


@pytest.mark.parametrize("seed", range(3))
def test_constants_come_back_from_whole_steps_that_show_only_the_slowest_rank(seed: int) -> None:
    measured = samples(work(1500, 8, seed), noise=0.02, seed=seed + 10)
    found = fit(measured, tuple(name for name in ALL if name != "fixed_s"), WRONG)
    assert not found.kept
    made = changed(TRUE, found.values)
    for name, value in found.values.items():
        assert value == pytest.approx(getattr(TRUE, name), rel=0.15), name
    others = work(500, 8, seed + 100)
    assert np.abs(seconds(made, others) / seconds(TRUE, others) - 1).max() < 0.05


def test_steps_that_something_held_up_change_little() -> None:
    clean = samples(work(600, 4), noise=0.03)
    step_s = clean.step_s.copy()
    step_s[::12] *= np.random.default_rng(3).uniform(2, 20, len(step_s[::12]))
    found = fit(Samples(clean.work, step_s), ALL, TRUE)
    made = changed(TRUE, found.values)
    others = work(300, 4, 50)
    assert np.abs(seconds(made, others) / seconds(TRUE, others) - 1).max() < 0.05


def test_a_single_step_of_its_kind_that_was_held_up_changes_little() -> None:
    rows = np.concatenate([work(400, 4, kinds=(0, 2)), work(1, 4, 5, kinds=(1,))])
    clean = samples(rows, noise=0.01)
    step_s = clean.step_s.copy()
    step_s[-1] *= 1.5
    made = changed(TRUE, fit(Samples(rows, step_s), ALL, TRUE).values)
    others = work(300, 4, 50)
    assert np.abs(seconds(made, others) / seconds(TRUE, others) - 1).max() < 0.05


def test_two_fixed_parts_that_always_come_together_are_not_told_apart() -> None:
    found = fit(samples(work(600, 8), noise=0.02), ALL, TRUE)
    (name,) = found.kept
    assert name in ("fixed_s", "common_fixed_s")
    assert found.values[name] == getattr(TRUE, name)
    whole = found.values["fixed_s"] + found.values["common_fixed_s"]
    assert whole == pytest.approx(TRUE.fixed_s + TRUE.common_fixed_s, rel=0.05)


def test_without_prefill_its_constants_are_the_priors() -> None:
    found = fit(samples(work(400, 8, kinds=(0,)), noise=0.02, has_local=True), ALL, WRONG)
    for name in ("prefill_s_per_token", "attention_s_per_pair", PENALTY):
        assert found.values[name] == getattr(WRONG, name)
        assert found.kept[name] == "no step has any of its work"
    assert found.values["decode_s_per_seq"] == pytest.approx(TRUE.decode_s_per_seq, rel=0.1)
    assert found.values["kv_s_per_token"] == pytest.approx(TRUE.kv_s_per_token, rel=0.1)


def test_without_mixed_steps_their_penalty_is_the_priors() -> None:
    rows = np.concatenate([work(300, 1, kinds=(0,)), work(300, 1, kinds=(1,))])
    found = fit(samples(rows, noise=0.02), (*LOCAL, PENALTY), TRUE)
    assert found.kept == {PENALTY: "no step has any of its work"}


def test_fresh_prompts_of_one_length_tell_no_pairs_from_tokens() -> None:
    rows = work(400, 8, kinds=(0, 2))
    rows[:, :, 3] = rows[:, :, 0] * 1500.0
    found = fit(samples(rows, noise=0.02, has_local=True), ALL, TRUE)
    assert set(found.kept) & {"prefill_s_per_token", "attention_s_per_pair"}
    b, e = (found.values[name] for name in ("prefill_s_per_token", "attention_s_per_pair"))
    true = TRUE.prefill_s_per_token + 1500 * TRUE.attention_s_per_pair
    assert b + 1500 * e == pytest.approx(true, rel=0.05)


def test_errors_are_those_of_the_steps() -> None:
    rows = work(300, 4)
    found = fit(samples(rows, has_local=True), ALL, WRONG)
    assert {error.part for error in found.errors} == {"step", "local", "common"}
    assert max(error.largest for error in found.errors) < 1e-6
    assert sum(error.steps for error in found.errors if error.part == "step") == len(rows)
    kept = fit(samples(rows, has_local=True), COMMON, changed(TRUE, {"fixed_s": 16e-3}))
    (worst,) = (e for e in kept.errors if (e.part, e.kind) == ("local", "decode"))
    assert worst.largest > 0.3


def test_steps_that_last_no_longer_than_their_slowest_rank_have_no_common_part() -> None:
    measured = samples(work(300, 4), changed(TRUE, dict.fromkeys((*COMMON, PENALTY), 0.0)), 0.03)
    parts = samples(measured.work, TRUE, 0.03, has_local=True).local_s
    assert parts is not None
    found = fit(Samples(measured.work, parts.max(axis=1), parts), ALL, WRONG)
    assert not found.kept
    assert [found.values[name] for name in (*COMMON, PENALTY)] == [0, 0, 0]


def test_some_steps_without_a_common_part_do_not_outweigh_the_others() -> None:
    measured = samples(work(600, 4), noise=0.02, has_local=True)
    assert measured.local_s is not None
    step_s = measured.step_s.copy()
    step_s[::15] = measured.local_s.max(axis=1)[::15]
    found = fit(Samples(measured.work, step_s, measured.local_s), ALL, WRONG)
    for name in (*COMMON, PENALTY):
        assert found.values[name] == pytest.approx(getattr(TRUE, name), rel=0.1), name


def test_where_no_step_tells_the_common_part_it_is_the_priors_and_said_so() -> None:
    measured = samples(work(300, 4), has_local=True)
    assert measured.local_s is not None
    short = Samples(measured.work, measured.local_s.max(axis=1) / 2, measured.local_s)
    found = fit(short, ALL, WRONG)
    for name in (*COMMON, PENALTY):
        assert found.values[name] == getattr(WRONG, name)
        assert found.kept[name] == "every step is shorter than its slowest rank's own part"


@pytest.mark.parametrize("has_local", [False, True])
def test_a_padded_common_part_grows_with_the_largest_rank(has_local: bool) -> None:
    padded = dataclasses.replace(TRUE, pad_to_largest=True)
    measured = samples(work(1500, 8), padded, 0.02, has_local=has_local)
    prior = dataclasses.replace(padded, common_s_per_token=4 * TRUE.common_s_per_token)
    found = fit(measured, tuple(name for name in ALL if name != "fixed_s"), prior)
    for name in COMMON:
        assert found.values[name] == pytest.approx(getattr(TRUE, name), rel=0.1), name


def test_few_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="19 steps are too few for a fit; give at least 20"):
        fit(samples(work(40, 2)[:19]), ALL, TRUE)
