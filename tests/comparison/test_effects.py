from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dpbal.comparison.comparison import Comparison, compare, compare_runs
from dpbal.comparison.effects import Effect, Method, Verdict
from dpbal.comparison.load import Run
from tests.comparison.runs import result, run, simulated, write

BASE = [1.0, 1.3, 0.8, 1.1, 0.9]
SLOWER = [1.05, 1.37, 0.84, 1.16, 0.94]


def sides(ours: list[float], base: list[float] = BASE) -> list[Run]:
    return [
        run(balancer=balancer, seed=seed, factor=factor)
        for balancer, factors in (("round_robin", base), ("random", ours))
        for seed, factor in enumerate(factors)
    ]


def effects(comparison: Comparison, combination: str = "random") -> dict[str, Effect]:
    (table,) = comparison.tables
    (row,) = [one.effects for one in table.others if one.combination.label == combination]
    return {effect.metric.name: effect for effect in row}


def test_a_paired_change_is_the_t_interval_of_the_log_ratios() -> None:
    found = effects(compare_runs(sides(SLOWER), level=0.9))["e2e_mean"]
    logs = np.log(np.divide(SLOWER, BASE))
    low, high = stats.ttest_1samp(logs, 0).confidence_interval(0.9)
    assert found.method is Method.paired
    assert found.ratio is not None
    assert found.ratio.mean == pytest.approx(math.expm1(logs.mean()))
    assert found.ratio.low == pytest.approx(math.expm1(low))
    assert found.ratio.high == pytest.approx(math.expm1(high))
    assert found.verdict is Verdict.worse


def test_the_absolute_change_has_an_interval_of_its_own() -> None:
    found = effects(compare_runs(sides(SLOWER)))["e2e_mean"]
    own = result()["e2e_s"]["mean"]
    test = stats.ttest_1samp(own * np.subtract(SLOWER, BASE), 0)
    low, high = test.confidence_interval(0.95)
    assert found.difference is not None
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high))
    assert found.mean == pytest.approx(own * np.mean(SLOWER))
    assert found.baseline_mean == pytest.approx(own * np.mean(BASE))


def test_what_is_better_depends_on_the_metric() -> None:
    changed = [
        run(
            balancer=b,
            seed=s,
            output_tokens_per_s=100 * f,
            goodput_rps=2 * f,
            straggler_share=f / 9,
        )
        for b, factors in (("round_robin", BASE), ("random", SLOWER))
        for s, f in enumerate(factors)
    ]
    found = effects(compare_runs(changed))
    assert found["ttft_mean"].verdict is Verdict.no_difference
    assert found["output_tokens_per_s"].verdict is Verdict.better
    assert found["goodput_rps"].verdict is Verdict.better
    assert found["straggler_share"].verdict is Verdict.worse


def test_pairing_finds_what_the_spread_of_the_requests_hides() -> None:
    runs = sides(SLOWER)
    unpaired = [
        run(balancer=b, seed=s, factor=f, requests=f"{b} {s}")
        for b, factors in (("round_robin", BASE), ("random", SLOWER))
        for s, f in enumerate(factors)
    ]
    assert effects(compare_runs(runs))["ttft_mean"].verdict is Verdict.worse
    found = effects(compare_runs(unpaired))["ttft_mean"]
    assert found.method is Method.welch
    assert found.verdict is Verdict.no_difference
    assert found.ratio is not None
    test = stats.ttest_ind(np.log(SLOWER), np.log(BASE), equal_var=False)
    assert found.ratio.low == pytest.approx(math.expm1(test.confidence_interval(0.95)[0]))


def test_pairs_go_by_the_requests_and_not_by_the_order() -> None:
    runs = sides(SLOWER)
    assert effects(compare_runs([*runs[:5], *reversed(runs[5:])])) == effects(compare_runs(runs))


def test_only_requests_that_both_met_are_paired() -> None:
    runs = sides([*SLOWER[:4], 100.0])
    runs[-1] = run(balancer="random", seed=77, factor=100.0)
    comparison = compare_runs(runs)
    found = effects(comparison)["ttft_mean"]
    assert (found.method, found.replicates) == (Method.paired, 4)
    assert found.ratio is not None
    assert found.ratio.mean == pytest.approx(0.05, abs=0.01)
    assert any("left out of the effect: random 4" in line for line in comparison.warnings)


def test_seeds_on_the_same_requests_are_one_replicate() -> None:
    runs = [
        run(balancer=b, seed=seed, factor=1 + more * seed, requests=f"window {window}")
        for b, more in (("round_robin", 0.0), ("random", 0.1))
        for window in range(2)
        for seed in range(5)
    ]
    comparison = compare_runs(runs)
    found = effects(comparison)["ttft_mean"]
    assert (found.replicates, found.baseline_replicates) == (2, 2)
    assert found.ratio is not None
    assert found.ratio.mean == pytest.approx(0.2)
    assert any("random 10 as 2" in line for line in comparison.warnings)


def test_the_same_requests_at_other_times_are_one_replicate_paired_by_their_times() -> None:
    runs = [
        run(balancer=b, seed=seed, factor=(1 + more) * (1 + 10 * seed), content=f"window {window}",
            requests=f"window {window} jittered by seed {seed}")
        for b, more, seeds in (("round_robin", 0.0, range(3)), ("random", 0.1, range(2)))
        for window in range(2)
        for seed in seeds
    ]  # fmt: skip
    comparison = compare_runs(runs)
    found = effects(comparison)["ttft_mean"]
    assert (found.method, found.replicates, found.baseline_replicates) == (Method.paired, 2, 2)
    assert found.ratio is not None
    assert found.ratio.mean == pytest.approx(0.1)
    assert any("round_robin 6 as 2, random 4 as 2" in line for line in comparison.warnings)
    assert any("left out of the effect: random 4" in line for line in comparison.warnings)


def test_only_jittered_arrivals_give_no_interval() -> None:
    comparison = compare_runs(
        [run(balancer=b, seed=s, content="trace") for b in ("vllm", "random") for s in range(5)]
    )
    found = effects(comparison)["ttft_mean"]
    assert (found.method, found.replicates) == (Method.none, 1)
    assert found.ratio is not None
    assert found.ratio.low is None


def test_one_replicate_has_no_interval_and_no_verdict() -> None:
    comparison = compare_runs([run(), run(balancer="random", factor=3.0)])
    found = effects(comparison)["ttft_mean"]
    assert found.verdict is Verdict.none
    assert found.ratio is not None
    assert found.ratio.mean == pytest.approx(2.0)
    assert found.ratio.low is None
    assert any("one replicate" in line for line in comparison.warnings)


def test_a_rate_of_zero_is_compared_by_differences() -> None:
    runs = [
        run(balancer=b, seed=s, goodput_rps=f * (s + 1.0))
        for b, f in (("round_robin", 0.0), ("random", 2.0))
        for s in range(5)
    ]
    found = effects(compare_runs(runs))["goodput_rps"]
    assert found.ratio is None
    assert found.difference is not None
    assert found.difference.mean == pytest.approx(6.0)
    assert found.difference.low == pytest.approx(
        stats.ttest_1samp(2.0 * np.arange(1, 6), 0).confidence_interval()[0]
    )


def test_a_metric_that_was_not_measured_is_not_compared() -> None:
    runs = sides(SLOWER)
    runs[-1] = run(balancer="random", seed=4, tpot_s__mean=None)
    found = effects(compare_runs(runs))
    assert found["tpot_mean"].estimate is None
    assert found["tpot_mean"].verdict is Verdict.none
    assert found["ttft_mean"].estimate is not None


def test_correction_only_takes_verdicts_away() -> None:
    runs = sides([1.01, 1.33, 0.80, 1.12, 0.91])
    found = {c: effects(compare_runs(runs, correct=c)) for c in ("none", "holm", "holm-all")}
    p = {c: {n: e.p_adjusted or 0.0 for n, e in row.items()} for c, row in found.items()}
    assert p["none"]["ttft_mean"] < 0.05 < p["holm"]["ttft_mean"]
    assert found["none"]["ttft_mean"].verdict is Verdict.worse
    assert found["holm"]["ttft_mean"].verdict is Verdict.no_difference
    third = [run(balancer="vllm", seed=s, factor=1.001 * f) for s, f in enumerate(SLOWER)]
    wider = effects(compare_runs([*runs, *third], correct="holm-all"))
    for name, effect in wider.items():
        assert (effect.p_adjusted or 0.0) >= p["holm"][name]


def lossy(balancer: str, seed: int, factor: float, lost: int) -> Run:
    counts = {"failed": lost, "aborted": 0, "unfinished": 0}
    made = result(balancer=balancer, seed=seed, factor=factor)
    offered = made["requests"]["offered"]
    outcomes = {"offered": offered, "finished": offered - lost, **counts}
    changes = {f"requests__{name}": value for name, value in outcomes.items()}
    return run(balancer=balancer, seed=seed, factor=factor, **changes)


def test_losing_requests_is_never_called_faster() -> None:
    def compared(base_lost: int, lost: int, factors: list[float]) -> Comparison:
        runs = [
            lossy(balancer, seed, factor, count)
            for balancer, rows, count in (
                ("round_robin", BASE, base_lost),
                ("random", factors, lost),
            )
            for seed, factor in enumerate(rows)
        ]
        return compare_runs(runs)

    faster = [0.9 * value for value in BASE]
    slower = [1 / 0.9 * value for value in BASE]
    assert effects(compared(0, 0, faster))["e2e_mean"].verdict is Verdict.better
    assert effects(compared(9, 9, faster))["e2e_mean"].verdict is Verdict.better
    lost = compared(0, 9, faster)
    assert effects(lost)["e2e_mean"].verdict is Verdict.withheld
    assert any("random 3.0%" in line for line in lost.warnings)
    assert effects(compared(0, 9, slower))["e2e_mean"].verdict is Verdict.worse
    assert effects(compared(9, 0, slower))["e2e_mean"].verdict is Verdict.withheld


def test_real_runs_show_an_effect_that_is_there_and_none_that_is_not(tmp_path: Path) -> None:
    group = ("workload.requests=1000", "group.kind=independent", "profile=i8b_prototype")
    policies = (
        ("balancer=round_robin",),
        ("balancer=least_prefill",),
        ("balancer=round_robin", "transport=poll_1s"),  # it reads no reports
    )
    made = [simulated(*group, *own, f"seed={seed}") for own in policies for seed in range(5)]
    comparison = compare([write(tmp_path, made)], baseline="round_robin")
    found = effects(comparison, "least_prefill")["ttft_mean"]
    assert (found.method, found.replicates) == (Method.paired, 5)
    assert found.verdict is Verdict.better
    (same,) = [o for o in comparison.tables[0].others if o.combination.balancer == "round_robin"]
    assert {effect.verdict for effect in same.effects} == {Verdict.no_difference}
    assert {effect.p_adjusted for effect in same.effects} == {1.0}
