from __future__ import annotations

from pathlib import Path

import pytest

from dpbal.comparison.comparison import compare, compare_runs
from dpbal.composition import compose
from tests.comparison.runs import run, seeds, write

FIXED_S = compose().profile["fixed_s"]


def warnings_of(**changes: object) -> list[str]:
    """Warnings where random ran with these changes and round robin without."""
    runs = [run(seed=seed) for seed in range(3)]
    runs += [run(balancer="random", seed=seed, **changes) for seed in range(3)]  # type: ignore[arg-type]
    return compare_runs(runs).warnings


def test_comparable_runs_have_no_warning() -> None:
    assert warnings_of() == []


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"config__slo__ttft_s": 1.0}, "not the same slo: slo.ttft_s 2 / 1"),
        ({"config__group__ranks": 16}, "not the same group: group.ranks 4 / 16"),
        (
            {"config__profile__fixed_s": 0.5},
            f"not the same profile: profile.fixed_s {FIXED_S} / 0.5",
        ),
        ({"config__workload__load": 0.5}, "not the same workload: workload.load 0.85 / 0.5"),
        ({"config__backend__name": "vllm"}, "mixed backends: simulator, vllm"),
        ({"versions__dpbal": "0.0.9"}, "not the same version of dpbal: "),
        ({"versions__numpy": "1.0"}, "not the same version of numpy: "),
        (
            {"unstable": True},
            "unstable, so latencies depend on the length of the run: random 3 of 3",
        ),
        ({"requests": "x"}, "runs on the same prompts and outputs count as one replicate"),
        ({"requests": "x"}, "not the same requests as round_robin's, so not paired: random"),
        ({"requests": "x"}, "not the same number of replicates: round_robin 3, random 1"),
        ({"requests__finished": 150}, "round_robin 0.0%, random 50.0%"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_makes_runs_less_than_comparable_is_said(
    changes: dict[str, object], warning: str
) -> None:
    assert any(warning in line for line in warnings_of(**changes)), warnings_of(**changes)


def test_unpaired_runs_are_said_to_be() -> None:
    runs = [run(seed=seed) for seed in range(3)]
    runs += [run(balancer="random", seed=seed) for seed in range(3, 6)]
    assert compare_runs(runs).warnings == [
        "not the same requests as round_robin's, so compared unpaired, by Welch's interval: random"
    ]


def test_a_run_that_did_not_end_is_left_out_of_a_multirun_and_named(tmp_path: Path) -> None:
    write(tmp_path, [*seeds("round_robin", [1, 1]), *seeds("random", [1, 1, 1])])
    (tmp_path / "4" / "result.json").unlink()
    assert compare([tmp_path]).warnings == [f"left out, for they did not end: {tmp_path / '4'}"]
