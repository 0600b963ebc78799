from __future__ import annotations

import subprocess
import sys

import pytest

import dpbal

HEAVY = {"torch", "vllm", "wandb", "matplotlib", "numba", "polars", "scipy"}


def modules_after(code: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a fresh interpreter that has run ``code``."""
    report = "import sys; print('\\nLOADED', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.rpartition("LOADED ")[2].split())


def test_import_dpbal_is_light() -> None:
    loaded = modules_after("import dpbal")
    assert "dpbal" in loaded
    assert not loaded & (HEAVY | {"numpy", "omegaconf", "hydra", "rich"})


def test_showing_a_config_needs_nothing_heavy() -> None:
    loaded = modules_after(
        "import sys; from dpbal.cli import main\n"
        "sys.argv = ['dpbal-run', '--cfg', 'job', 'balancer=minimum_tokens', 'seed=3']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert "hydra" in loaded
    assert not loaded & (HEAVY | {"rich", "numpy"})


@pytest.mark.parametrize("family", ["balancer", "signal", "transport", "budget", "workload"])
def test_checking_a_family_compiles_nothing(family: str) -> None:
    loaded = modules_after(f"import dpbal.{family}s")
    assert not loaded & HEAVY


@pytest.mark.parametrize("name", dpbal.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(dpbal, name) is not None


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Balancr'"):
        dpbal.Balancr  # noqa: B018
