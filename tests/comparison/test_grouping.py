from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpbal.comparison.comparison import Comparison, compare, compare_runs
from dpbal.comparison.load import Run
from dpbal.errors import ConfigError
from dpbal.results import content_digest, requests_digest
from dpbal.workloads import Requests
from tests.comparison.runs import run, seeds, write

FAST = {"name": "delayed", "interval_s": 0.1}
SLOW = {"name": "delayed", "interval_s": 1.0}


def labels(comparison: Comparison) -> list[list[str]]:
    return [
        [table.baseline.label, *(one.combination.label for one in table.others)]
        for table in comparison.tables
    ]


def many(*changes: dict[str, object]) -> list[Run]:
    return [run(seed=seed, **one) for one in changes for seed in range(2)]  # type: ignore[arg-type]


def test_seed_window_name_and_tracker_make_no_combination() -> None:
    runs = [
        run(
            seed=1, config__workload__window=0, config__name="a", config__tracker={"name": "wandb"}
        ),
        run(seed=2, config__workload__window=1, config__progress=False),
        run(balancer="random", seed=1),
    ]
    assert labels(compare_runs(runs)) == [["round_robin", "random"]]


def test_a_label_has_what_is_needed_to_tell_combinations_apart() -> None:
    runs = many(
        {"balancer": "round_robin"},
        {"balancer": "random"},
        {"balancer": "random", "config__transport": FAST},
        {"balancer": "random", "config__transport": SLOW},
    )
    assert labels(compare_runs(runs)) == [
        [
            "round_robin",
            "random transport=local",
            "random transport=delayed transport.interval_s=0.1",
            "random transport=delayed transport.interval_s=1",
        ]
    ]


def test_the_choice_of_a_group_names_it_where_hydra_wrote_it_down(tmp_path: Path) -> None:
    made = [
        *seeds("random", [1, 1], config__transport=FAST),
        *seeds("random", [1, 1], config__transport=SLOW),
    ]
    write(tmp_path, made)
    for job in range(4):
        chosen = "broadcast_100ms" if job < 2 else "poll_1s"
        text = f"hydra:\n  runtime:\n    choices:\n      transport: {chosen}\n      preset: null\n"
        (tmp_path / str(job) / ".hydra" / "hydra.yaml").write_text(text)
    assert labels(compare([tmp_path], baseline="transport=poll_1s")) == [
        ["random transport=poll_1s", "random transport=broadcast_100ms"]
    ]


def test_a_name_of_ones_own_is_the_label() -> None:
    runs = many({"config__name": "mine"}, {"balancer": "random"})
    assert labels(compare_runs(runs, baseline="mine")) == [["mine", "random"]]


def test_each_workload_is_a_table_of_its_own() -> None:
    runs = many(
        {"balancer": "random", "config__workload__load": 0.7},
        {"balancer": "round_robin", "config__workload__load": 0.7},
        {"balancer": "random", "config__workload__load": 0.9},
        {"balancer": "round_robin", "config__workload__load": 0.9},
    )
    comparison = compare_runs(runs)
    assert [table.setting for table in comparison.tables] == [
        "workload.load=0.7",
        "workload.load=0.9",
    ]
    assert labels(comparison) == [["round_robin", "random"]] * 2
    assert comparison.warnings == []


def test_what_ran_alone_or_without_the_baseline_is_left_out_and_said() -> None:
    runs = many(
        {"balancer": "random"},
        {"balancer": "round_robin"},
        {"balancer": "random", "config__workload__load": 0.7},
        {"balancer": "round_robin", "config__workload__load": 0.8},
    )
    comparison = compare_runs(runs, baseline="round_robin")
    assert labels(comparison) == [["round_robin", "random"]]
    first, second = comparison.warnings
    assert first == "workload.load=0.7: left out, for the baseline round_robin did not run there"
    assert second == "workload.load=0.8: left out, for nothing but round_robin ran there"


def test_a_setting_named_in_the_baseline_is_what_is_compared() -> None:
    runs = many(
        {"config__group__ranks": 4},
        {"config__group__ranks": 8},
        {"config__group__ranks": 4, "config__workload__load": 0.7},
        {"config__group__ranks": 8, "config__workload__load": 0.7},
    )
    comparison = compare_runs(runs, baseline="group.ranks=8")
    assert labels(comparison) == [["round_robin group.ranks=8", "round_robin group.ranks=4"]] * 2


@pytest.mark.parametrize(
    "baseline",
    ["random", "mine", "balancer=random", "balancer=random,ledger.mode=overwrite", "group.ranks=4"],
)
def test_the_ways_to_name_a_baseline(baseline: str) -> None:
    runs = many(
        {"balancer": "random", "config__ledger__mode": "overwrite", "config__name": "mine"},
        {"balancer": "round_robin"},
    )
    assert labels(compare_runs(runs, baseline=baseline)) == [["mine", "round_robin"]]


def test_a_baseline_whose_parts_never_met_is_an_error() -> None:
    runs = many({"balancer": "random", "config__ledger__mode": "overwrite"}, {})
    with pytest.raises(ConfigError, match="no combination has all of these; there are random"):
        compare_runs(runs, baseline="balancer=round_robin,ledger.mode=overwrite")


def test_round_robin_is_the_baseline_if_it_is_there_and_else_the_first() -> None:
    runs = many({"balancer": "vllm"}, {"balancer": "round_robin"}, {"balancer": "random"})
    assert labels(compare_runs(runs)) == [["round_robin", "vllm", "random"]]
    assert labels(compare_runs(runs[:2] + runs[4:])) == [["vllm", "random"]]


def test_the_first_of_several_baselines_is_taken_and_said() -> None:
    runs = many({"config__transport": FAST}, {"config__transport": SLOW}, {"balancer": "random"})
    comparison = compare_runs(runs)
    assert comparison.tables[0].baseline.label == "round_robin transport.interval_s=0.1"
    assert any("2 combinations are round_robin" in line for line in comparison.warnings)


def test_each_run_can_be_a_side_of_its_own(tmp_path: Path) -> None:
    old = write(tmp_path / "old", seeds("random", [1.0, 1.1, 0.9]))
    new = write(tmp_path / "new", seeds("random", [1.2, 1.3, 1.1]))
    comparison = compare([old, new], by="argument")
    assert labels(comparison) == [[str(old), str(new)]]
    (ttft, *_) = comparison.tables[0].others[0].effects
    assert ttft.ratio is not None
    assert ttft.ratio.mean == pytest.approx(0.2, abs=0.01)


COLUMNS = {
    "arrival_s": np.array([5.0, 6.0, 8.0]),
    "prompt_tokens": np.array([1100, 600, 600]),
    "output_tokens": np.array([1, 2, 3]),
    "block_hashes": np.array([5, 6, 7]),
    "hash_offsets": np.array([0, 1, 2, 3]),
    "session": np.array([0, 1, 1]),
    "pinned_rank": np.array([0, -1, -1]),
}


@pytest.mark.parametrize("column", COLUMNS)
def test_other_requests_have_another_digest(column: str) -> None:
    own = requests_digest(Requests(**COLUMNS))  # type: ignore[arg-type]
    changed = COLUMNS[column].copy()
    if column == "hash_offsets":
        changed[1] = 2
    else:
        changed[-1] += 1
    assert requests_digest(Requests(**(COLUMNS | {column: changed}))) != own  # type: ignore[arg-type]


def test_the_digest_ignores_the_last_digits_of_arrivals() -> None:
    own = Requests(**COLUMNS)  # type: ignore[arg-type]
    nearly = np.nextafter(COLUMNS["arrival_s"], np.inf)
    near = Requests(**(COLUMNS | {"arrival_s": nearly}))
    assert requests_digest(near) == requests_digest(own)


@pytest.mark.parametrize("column", ["arrival_s", "prompt_tokens", "output_tokens", "block_hashes"])
def test_arrivals_are_no_other_content(column: str) -> None:
    own = content_digest(Requests(**COLUMNS))  # type: ignore[arg-type]
    changed = Requests(**(COLUMNS | {column: COLUMNS[column] + np.array([0, 0, 1])}))
    assert (content_digest(changed) == own) == (column == "arrival_s")


def test_arrivals_tell_requests_apart_that_are_all_alike() -> None:
    alike = np.array([100, 100])
    digests = {content_digest(Requests(np.array([0.0, gap]), alike, alike)) for gap in (1.0, 2.0)}
    assert len(digests) == 2
