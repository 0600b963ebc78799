"""What the level budget learns from steps that take another time than the profile says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from dpbal.backends.simulator.simulator import Simulator
from dpbal.budgets import Level, Limits
from dpbal.core import VECTOR
from dpbal.step_time import StepTime
from tests.simulator.runs import LOCKSTEP, Run, simulate, workload

RANKS = 4
PROFILE = StepTime(
    fixed_s=6e-3,
    prefill_s_per_token=70e-6,
    decode_s_per_seq=400e-6,
    kv_s_per_token=100e-9,
    attention_s_per_pair=10e-9,
    common_fixed_s=20e-3,
    common_s_per_token=70e-6,
    mixed_penalty_s=10e-3,
)
PREFILL = ["prefill_s_per_token", "attention_s_per_pair"]
DECODE = ["decode_s_per_seq", "kv_s_per_token"]
FIXED = ["fixed_s", "common_fixed_s"]
ALL = [*FIXED, *PREFILL, *DECODE, "common_s_per_token", "mixed_penalty_s"]


@dataclass
class Watched(Level):
    """The level budget, with the factors of all steps."""

    seen: list[list[float]] = field(default_factory=list)

    def limits(self, step: int, vectors: np.ndarray) -> Limits:
        """Limits, as ever."""
        limits = super().limits(step, vectors)
        self.seen.append(self.factors.tolist())
        return limits


def serve(budget: Level, wrong: dict[str, float]) -> Run:
    """400 requests on a group that such factors make slower or faster than its profile."""
    rng = np.random.default_rng(5)
    pace = float(np.mean(list(wrong.values()))) if len(wrong) == len(ALL) else 1.0
    arrivals_s = pace * np.cumsum(rng.exponential(0.25, 400))
    prompts, outputs = rng.geometric(1 / 900, 400), rng.geometric(1 / 120, 400)
    return simulate(
        workload(zip(arrivals_s, prompts, outputs, strict=True)),
        PROFILE,
        kind=LOCKSTEP,
        ranks=RANKS,
        engine=Simulator(true_cost=wrong),
        budget=budget,
    )


@pytest.mark.parametrize("factor", [0.25, 4.0])
@pytest.mark.parametrize(
    ("names", "places"), [(ALL, range(5)), (PREFILL, [1]), (DECODE, [2]), (FIXED, [0])]
)
def test_four_times_wrong_is_right_after_some_hundred_steps(
    names: list[str], places: range | list[int], factor: float
) -> None:
    budget = Watched()
    serve(budget, dict.fromkeys(names, factor))
    right = np.ones(5)
    right[list(places)] = factor
    assert len(budget.seen) > 1100
    late = np.array(budget.seen[800:])
    np.testing.assert_allclose(late, np.broadcast_to(right, late.shape), rtol=0.1)


def test_right_constants_stay_as_they_are() -> None:
    learning, believing = serve(Level(), {}), serve(Level(learns=False), {})
    np.testing.assert_array_equal(learning.steps["end_s"], believing.steps["end_s"])


def test_a_target_is_kept_though_the_profile_is_four_times_wrong() -> None:
    def share_of_long_steps(budget: Level) -> float:
        steps = serve(budget, dict.fromkeys(PREFILL, 4.0)).steps
        late = steps[len(steps) // 4 :]
        return float((late["end_s"] - late["start_s"] > 0.125).mean())

    assert share_of_long_steps(Level(tpot_s=0.1, learns=False)) > 0.1
    assert share_of_long_steps(Level(tpot_s=0.1)) < 0.02


def steps(count: int, seed: int = 0, prefills: bool = True) -> list[np.ndarray]:
    """Vectors of so many steps that took what the profile says."""
    rng = np.random.default_rng(seed)
    versions = []
    for _ in range(count):
        v = np.zeros(RANKS, VECTOR)
        v["done_decode_s"] = rng.uniform(0.002, 0.02, RANKS)
        prefill_s = rng.choice([0.0, 0.02, 0.07, 0.15], RANKS) if prefills else np.zeros(RANKS)
        v["done_prefill_s"] = prefill_s
        v["done_tokens"] = 50 + prefill_s / PROFILE.prefill_s_per_token
        local_s = PROFILE.fixed_s + (v["done_decode_s"] + prefill_s).max()
        v["step_s"] = local_s + PROFILE.common_s(v["done_tokens"].tolist(), bool(prefill_s.any()))
        v["decode_seqs"], v["decode_s"] = 50, v["done_decode_s"]
        versions.append(v)
    return versions


def taught(
    versions: list[np.ndarray], duration: Callable[[int], float], budget: Level | None = None
) -> Level:
    """A budget that has seen steps last so many times what the profile says."""
    if budget is None:
        budget = Level()
        budget.start(RANKS, PROFILE, 2048)
    for number, version in enumerate(versions):
        longer = version.copy()
        longer["step_s"] *= duration(number)
        budget.limits(number, longer)
    return budget


@pytest.mark.parametrize("hiccup", [0, 1, 30, 500])
def test_one_step_that_takes_ten_times_as_long_is_soon_forgotten(hiccup: int) -> None:
    budget = taught(steps(hiccup + 100), lambda number: 10.0 if number == hiccup else 1.0)
    np.testing.assert_allclose(budget.factors[:4], 1.0, rtol=0.1)
    if hiccup == 500:
        assert budget.factors.tolist() == [1.0] * 5


def test_noise_and_hiccups_do_no_harm() -> None:
    rng = np.random.default_rng(1)
    noise = np.exp(rng.normal(0, 0.05, 3000)) * rng.choice([1.0, 8.0], 3000, p=[0.98, 0.02])
    budget = taught(steps(3000), lambda number: float(noise[number]))
    np.testing.assert_allclose(budget.factors, 1.0, rtol=0.15)


def test_a_device_that_slows_down_for_good_is_followed() -> None:
    budget = taught(steps(400), lambda _: 1.0)
    taught(steps(60, seed=1), lambda _: 1.8, budget)
    np.testing.assert_allclose(budget.factors[:3], 1.8, rtol=0.1)


def test_what_does_not_happen_is_not_forgotten() -> None:
    budget = taught(steps(400), lambda _: 3.0)
    rng = np.random.default_rng(2)
    noise = np.exp(rng.normal(0, 0.05, 5000))
    taught(steps(5000, 1, prefills=False), lambda number: 3.0 * float(noise[number]), budget)
    assert budget.factors[1] == pytest.approx(3.0, rel=0.03)


def test_a_rank_that_misses_versions_comes_to_the_same() -> None:
    versions = steps(600)
    some = [version for number, version in enumerate(versions) if number % 7]
    one, other = (taught(seen, lambda _: 0.3) for seen in (versions, some))
    np.testing.assert_allclose(one.factors, other.factors, rtol=0.01)


def test_a_rank_alone_goes_by_what_it_has_learnt() -> None:
    own = np.zeros(1, VECTOR)
    own["decode_seqs"], own["decode_s"] = 50, 0.02
    believed_s = taught([], lambda _: 1.0).alone_s(own)
    assert taught(steps(400), lambda _: 3.0).alone_s(own) == pytest.approx(believed_s, rel=0.05)
    slow = replace(PROFILE, **{name: getattr(PROFILE, name) * 3.0 for name in FIXED})
    known = Level()
    known.start(RANKS, slow, 2048)
    learnt = Watched()
    serve(learnt, dict.fromkeys(FIXED, 3.0))
    assert learnt.alone_s(own) == pytest.approx(known.alone_s(own), rel=0.05)
