from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

import dpbal
from dpbal.composition import check_jobs
from dpbal.config import Config, check, to_dict
from dpbal.errors import ConfigError
from dpbal.modes import GroupKind, LedgerMode
from dpbal.overrides import CONF
from dpbal.parts import FAMILIES, build, build_step_time


def choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def test_the_default_run_is_a_lockstep_group_of_eight() -> None:
    config = dpbal.compose()
    assert (config.group.kind, config.group.ranks) == (GroupKind.lockstep, 8)
    assert config.ledger.mode is LedgerMode.acknowledge
    assert config.balancer["name"] == "round_robin"
    assert config.workload["load"] == 0.85


@pytest.mark.parametrize("name", choices("balancer"))
def test_both_forms_choose_the_same_balancer(name: str) -> None:
    saved = OmegaConf.load(CONF / "balancer" / f"{name}.yaml")
    config = dpbal.compose(f"+balancer={name}")
    assert config == dpbal.compose(f"balancer={name}")
    assert config.balancer["name"] == OmegaConf.select(saved, "name")


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, name) for group in (*FAMILIES, "backend") for name in choices(group)],
)
def test_every_choice_composes_and_builds(group: str, name: str) -> None:
    assert build(group, getattr(dpbal.compose(f"{group}={name}"), group)) is not None


@pytest.mark.parametrize("name", choices("profile"))
def test_every_profile_composes_and_costs_time(name: str) -> None:
    step_time = build_step_time(dpbal.compose(f"profile={name}").profile)
    assert step_time.local_s(1000, 10, 10_000, 500_000) > 0


@pytest.mark.parametrize("name", choices("preset"))
def test_every_preset_composes_and_builds(name: str) -> None:
    config = dpbal.compose(f"+preset={name}")
    assert config != dpbal.compose()
    for family in FAMILIES:
        build(family, getattr(config, family))


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_experiment_composes_and_builds(name: str) -> None:
    saved = OmegaConf.load(CONF / "experiment" / f"{name}.yaml")
    sweep = OmegaConf.select(saved, "hydra.sweeper.params") or {}
    overrides = [f"+experiment={name}", *(f"{key}={values}" for key, values in sweep.items())]
    for config in check_jobs(overrides, None, is_sweep=True):
        for family in FAMILIES:
            build(family, getattr(config, family))
        build_step_time(config.profile)


def test_a_balancer_brings_its_own_signal() -> None:
    assert dpbal.compose("balancer=minimum_tokens").signal != dpbal.compose().signal


def test_the_command_line_wins_over_a_balancers_signal() -> None:
    config = dpbal.compose("balancer=minimum_tokens", "signal=requests")
    assert config.signal["name"] == "requests"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of one's own configs: a preset, an experiment that uses it, and a balancer."""
    for file, text in {
        "preset/peer.yaml": "# @package _global_\n"
        "defaults:\n  - override /balancer: minimum_tokens\n  - override /signal: get_load\n"
        "ledger: {mode: overwrite}\nseed: 5\n",
        "experiment/saved.yaml": "# @package _global_\n"
        "defaults:\n  - override /preset: peer\n  - override /signal: holding_tokens\nseed: 7\n",
        "balancer/own.yaml": "name: random\n",
    }.items():
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(text)
    return tmp_path


def test_a_folder_of_ones_own_adds_choices(mine: Path) -> None:
    assert dpbal.compose("+balancer=own", config_dir=mine).balancer == {"name": "random"}


def test_a_preset_wins_over_the_balancers_signal_and_the_root_values(mine: Path) -> None:
    config = dpbal.compose("+preset=peer", config_dir=mine)
    assert config.balancer["name"] == "minimum_tokens"
    assert config.signal["name"] == "get_load"
    assert (config.ledger.mode, config.seed) == (LedgerMode.overwrite, 5)


def test_an_experiment_wins_over_its_preset(mine: Path) -> None:
    config = dpbal.compose("+experiment=saved", config_dir=mine)
    assert config.balancer["name"] == "minimum_tokens"
    assert config.signal["name"] == "holding_tokens"
    assert (config.ledger.mode, config.seed) == (LedgerMode.overwrite, 7)


def test_the_command_line_wins_over_all(mine: Path) -> None:
    config = dpbal.compose(
        "+experiment=saved", "balancer=random", "ledger.mode=acknowledge", "seed=9", config_dir=mine
    )
    assert config.balancer["name"] == "random"
    assert (config.ledger.mode, config.seed) == (LedgerMode.acknowledge, 9)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"):
        dpbal.compose(config_dir=tmp_path / "absent")


def test_a_config_survives_being_written(tmp_path: Path) -> None:
    config = dpbal.compose("balancer=minimum_tokens", "group.kind=independent", "name=trial")
    OmegaConf.save(OmegaConf.create(to_dict(config)), tmp_path / "config.yaml")
    loaded = OmegaConf.load(tmp_path / "config.yaml")
    assert check(loaded) == config  # type: ignore[arg-type]


def test_a_config_without_components_says_which_to_choose() -> None:
    with pytest.raises(ValueError, match="no balancer is chosen; type balancer=NAME"):
        Config()


def test_composing_inside_a_composed_run_leaves_hydra_as_it_was() -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        before = compose("config")
        dpbal.compose("seed=4")
        assert compose("config") == before
