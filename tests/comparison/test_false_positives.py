"""An A/A comparison must not be called a difference more often than its level says."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scipy.stats import binom

from dpbal.comparison.comparison import compare_runs
from dpbal.comparison.effects import Method, Verdict
from dpbal.comparison.load import Distribution, Run
from tests.comparison.runs import run

TRIALS = 200
SEEDS = 5
RISK = 0.05


def trial(rng: np.random.Generator, *, paired: bool, effect: float = 0.0) -> list[Run]:
    """Two sides of five runs: requests make slow and fast runs, and chance a little more."""
    sides = []
    requests = rng.normal(0, 0.2, SEEDS)
    for side, change in (("a", 0.0), ("b", effect)):
        if not paired and side == "b":
            requests = rng.normal(0, 0.2, SEEDS)
        for seed in range(SEEDS):
            level = requests[seed] + change
            name = f"{seed}" if paired else f"{side}{seed}"
            sides.append(noisy(run(side, requests=name), rng, level))
    return sides


def noisy(one: Run, rng: np.random.Generator, level: float) -> Run:
    def draw() -> float:
        return float(np.exp(level + rng.normal(0, 0.02)))

    latencies = {
        name: Distribution(draw(), draw(), draw(), draw())
        for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s")
    }
    shares = {"straggler_share": 0.3 * draw()}
    rates = {name: draw() for name in ("output_tokens_per_s", "goodput_rps")}
    changed = msgspec.structs.replace(one.result, **latencies, **shares, **rates)
    return Run(one.directory, one.argument, changed)


def verdicts(runs: list[Run], method: Method, correct: str) -> list[Verdict]:
    comparison = compare_runs(runs, by="argument", correct=correct)
    (other,) = comparison.tables[0].others
    assert {effect.method for effect in other.effects} == {method}
    return [effect.verdict for effect in other.effects]


@pytest.mark.parametrize(
    ("paired", "method"), [(True, Method.paired), (False, Method.welch)], ids=["paired", "welch"]
)
@pytest.mark.parametrize("correct", ["holm", "holm-all"])
def test_corrected_verdicts_keep_their_level(paired: bool, method: Method, correct: str) -> None:
    rng = np.random.default_rng(20)
    called = sum(
        any(
            verdict is not Verdict.no_difference
            for verdict in verdicts(trial(rng, paired=paired), method, correct)
        )
        for _ in range(TRIALS)
    )
    assert called <= binom.ppf(0.999, TRIALS, RISK)


@pytest.mark.parametrize(
    ("paired", "method"), [(True, Method.paired), (False, Method.welch)], ids=["paired", "welch"]
)
def test_uncorrected_verdicts_keep_their_level_each(paired: bool, method: Method) -> None:
    rng = np.random.default_rng(21)
    found = [verdicts(trial(rng, paired=paired), method, "none") for _ in range(TRIALS)]
    called = np.array([[v is not Verdict.no_difference for v in row] for row in found])
    most = binom.ppf(0.9999, TRIALS, RISK)  # of one metric; there are eight
    assert called.sum(axis=0).max() <= most
    # a test that never calls anything keeps every level, and is no test
    assert called.sum() >= TRIALS * called.shape[1] * RISK / 4


def test_an_effect_of_five_percent_is_found_by_pairing_and_hardly_without() -> None:
    rng = np.random.default_rng(22)
    found = {}
    for paired, method in ((True, Method.paired), (False, Method.welch)):
        rows = [verdicts(trial(rng, paired=paired, effect=0.05), method, "holm") for _ in range(50)]
        found[method] = np.mean([row[0] is Verdict.worse for row in rows])
    assert found[Method.paired] > 0.3
    assert found[Method.welch] < 0.1
