"""Steps that take another time than the profile says, while everybody believes the profile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dpbal.backends.simulator.simulator import FACTORS, Simulator
from dpbal.budgets import TimeCap
from dpbal.composition import compose
from dpbal.errors import ConfigError
from dpbal.modes import GroupKind
from dpbal.reference import run_pooled, saturation_rate
from dpbal.step_time import StepTime
from tests.simulator.runs import INDEPENDENT, LOCKSTEP, Probe, simulate, workload

PROFILE = StepTime(
    fixed_s=6e-3,
    prefill_s_per_token=70e-6,
    decode_s_per_seq=20e-6,
    kv_s_per_token=30e-9,
    attention_s_per_pair=10e-9,
    common_fixed_s=20e-3,
    common_s_per_token=50e-6,
    mixed_penalty_s=8e-3,
)
WRONG = {name: 0.25 + 0.5 * k for k, name in enumerate(FACTORS)}
TRUTH = replace(PROFILE, **{name: getattr(PROFILE, name) * f for name, f in WRONG.items()})
REQUESTS = workload([(0.05 * k, 300 + 977 * k % 3000, 1 + 7 * k % 50) for k in range(60)])


@pytest.mark.parametrize("kind", [LOCKSTEP, INDEPENDENT])
def test_steps_take_the_true_time(kind: GroupKind) -> None:
    believed = simulate(REQUESTS, PROFILE, kind=kind, ranks=2, engine=Simulator(true_cost=WRONG))
    known = simulate(REQUESTS, TRUTH, kind=kind, ranks=2)
    np.testing.assert_allclose(believed.steps["end_s"], known.steps["end_s"], rtol=1e-9)
    np.testing.assert_allclose(believed.steps["local_s"], known.steps["local_s"], rtol=1e-9)


def test_the_reference_is_of_the_true_machine() -> None:
    engine = Simulator(true_cost=WRONG)
    assert saturation_rate(REQUESTS, engine, PROFILE, 4) == pytest.approx(
        saturation_rate(REQUESTS, Simulator(), TRUTH, 4)
    )
    np.testing.assert_allclose(
        run_pooled(REQUESTS, engine, PROFILE, 4, 0).requests["finish_s"],
        run_pooled(REQUESTS, Simulator(), TRUTH, 4, 0).requests["finish_s"],
    )


def test_reports_and_limits_are_of_the_profile() -> None:
    probe = Probe()
    run = simulate(
        workload([(0.0, 1500, 3), (0.07, 10, 1)]),  # the first step ends at 0.0615 s
        replace(PROFILE, attention_s_per_pair=0.0),
        kind=LOCKSTEP,
        engine=Simulator(true_cost={"prefill_s_per_token": 0.01}),
        balancer=lambda: probe,
        budget=TimeCap(step_s=700 * PROFILE.prefill_s_per_token),
    )
    assert run.steps["prefill_tokens"][:3].tolist() == [700, 700, 110]
    assert run.steps["local_s"][0] == pytest.approx(0.006 + 700 * 0.01 * 70e-6)
    assert probe.seen("prefill_tokens").tolist() == [0, 800]
    assert probe.seen("prefill_s")[1] == pytest.approx(800 * PROFILE.prefill_s_per_token)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{prefil_s_per_token: 2}", "did you mean 'prefill_s_per_token'"),
        ("{pad_to_largest: 2}", "unknown constant 'pad_to_largest'"),
        ("{fixed_s: 0}", "true_cost.fixed_s must be a positive factor, got 0.0"),
    ],
)
def test_what_is_no_factor_of_a_constant_is_refused(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(f"backend.true_cost={given}")
