from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpbal.errors import ConfigError
from dpbal.sweeps.jobs import LONGEST_NAME, Job, expand

PARAMS = {
    "balancer": "random,round_robin,least_prefill",
    "transport": "choice(local,poll_1s)",
    "workload.load": "interval(0.3, 0.9)",
    "group.ranks": "range(2,9,2)",
    "seed": "0,1",
}


def values(job: Job) -> dict[str, str]:
    return dict(line.split("=", 1) for line in job.overrides)


def test_a_grid_has_every_combination_once() -> None:
    jobs = expand({"balancer": "random,vllm", "seed": "range(3)"}, ["workload.load=0.5"])
    assert [tuple(values(job).values()) for job in jobs] == [
        (balancer, seed, "0.5") for balancer in ("random", "vllm") for seed in "012"
    ]


def test_what_is_typed_takes_the_place_of_what_is_saved() -> None:
    jobs = expand({"balancer": "random,vllm", "seed": "0,1"}, ["balancer=least_prefill", "seed=7"])
    assert [values(job) for job in jobs] == [{"balancer": "least_prefill", "seed": "7"}]


def test_the_same_draws_come_from_the_same_seed_only() -> None:
    once = expand(PARAMS, [], samples=10, seed=3)
    assert once == expand(PARAMS, [], samples=10, seed=3)
    assert once != expand(PARAMS, [], samples=10, seed=4)


def test_more_draws_begin_with_the_same_ones() -> None:
    assert expand(PARAMS, [], samples=25)[:20] == expand(PARAMS, [], samples=10)


def test_every_draw_is_run_with_every_seed() -> None:
    jobs = expand(PARAMS, [], samples=10)
    assert len(jobs) == 20
    for first, second in zip(jobs[::2], jobs[1::2], strict=True):
        assert (values(first)["seed"], values(second)["seed"]) == ("0", "1")
        assert values(first) | {"seed": ""} == values(second) | {"seed": ""}


def test_fixing_one_key_leaves_the_draws_of_the_others() -> None:
    free = [values(job) for job in expand(PARAMS, ["seed=0"], samples=10)]
    fixed = [values(job) for job in expand(PARAMS, ["seed=0", "balancer=random"], samples=10)]
    assert [v | {"balancer": "random"} for v in free] == fixed


@given(st.integers(0, 10_000))
def test_draws_lie_where_they_may(seed: int) -> None:
    params = PARAMS | {
        "group.dispatchers": "int(interval(1, 4))",
        "slo.tpot_s": "tag(log, interval(0.001, 1))",
    }
    for job in expand(params, ["seed=0"], samples=20, seed=seed):
        drawn = values(job)
        assert drawn["balancer"] in ("random", "round_robin", "least_prefill")
        assert drawn["transport"] in ("local", "poll_1s")
        assert 0.3 <= float(drawn["workload.load"]) <= 0.9
        assert int(drawn["group.ranks"]) in (2, 4, 6, 8)
        assert int(drawn["group.dispatchers"]) in (1, 2, 3)
        assert 0.001 <= float(drawn["slo.tpot_s"]) <= 1


def test_a_logarithmic_interval_is_drawn_by_its_powers() -> None:
    jobs = expand({"slo.tpot_s": "tag(log, interval(0.001, 1))"}, [], samples=300)
    below = sum(float(values(job)["slo.tpot_s"]) < 0.01 for job in jobs)
    assert 60 < below < 140  # a third of them; 300 draws leave 100 +- 8


def test_no_more_is_drawn_than_there_is() -> None:
    jobs = expand({"balancer": "random,vllm", "transport": "local,poll_1s"}, [], samples=50)
    assert len(jobs) == len(set(jobs)) == 4


@pytest.mark.parametrize(
    ("params", "samples", "message"),
    [
        ({"balancer": "random,vllm"}, 0, "samples must be at least 1, got 0"),
        ({"workload.load": "interval(0.3,0.9)"}, None, "range to draw from.*samples=20"),
        ({"workload.load": "interval(0.9,0.3)"}, 5, "nothing lies there; type low < high"),
        ({"slo.tpot_s": "tag(log, interval(0,1))"}, 5, "type 0 < low < high"),
        ({"seed": "range(0)"}, None, "the sweep is empty"),
    ],
)
def test_what_cannot_be_swept_is_a_mistake(
    params: dict[str, str], samples: int | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        expand(params, [], samples)


@pytest.mark.parametrize("values", ["tracker=none,wandb", "progress=true,false"])
def test_values_that_change_no_result_are_not_swept(values: str) -> None:
    key = values.partition("=")[0]
    with pytest.raises(ConfigError, match=f"give the same results.*; give {key} one value"):
        expand({"balancer": "random,vllm"}, [values])


def test_a_name_holds_what_was_chosen_in_any_order() -> None:
    job = Job(("sweep=loads", "seed=1", "balancer=random", "progress=false", "tracker=wandb"))
    assert job.name == "balancer=random,seed=1"
    assert Job(tuple(reversed(job.overrides))).name == job.name


def test_a_sweep_with_more_values_keeps_the_names_it_had() -> None:
    few = expand({"balancer": "random,vllm", "seed": "0"}, [])
    more = expand({"balancer": "random,vllm", "seed": "0,1"}, [])
    assert {job.name for job in few} < {job.name for job in more}


@given(st.lists(st.text(max_size=300), min_size=2, max_size=2, unique=True))
def test_every_name_is_one_of_a_directory_and_its_own(texts: list[str]) -> None:
    names = [Job((f"name='{text}'",)).name for text in texts]
    assert names[0] != names[1]
    for name in names:
        assert re.fullmatch(r"[\w.,=+-]+", name)
        assert len(name.encode()) <= LONGEST_NAME
