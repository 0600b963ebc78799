"""Small runs to report on, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dpbal.composition import compose
from dpbal.experiment import run

SMALL = ("workload.requests=250", "group.ranks=4")
POLICIES = {
    "round_robin": ("balancer=round_robin",),
    "minimum_tokens": ("balancer=minimum_tokens",),
    "level": ("balancer=least_prefill", "budget=level"),
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three combinations on three seeds, ``made/level-1`` and so on; not to be written to."""
    folder = tmp_path_factory.mktemp("report") / "made"
    for name, overrides in POLICIES.items():
        for seed in range(3):
            config = compose(*SMALL, *overrides, f"seed={seed}")
            run(config, folder / f"{name}-{seed}", show=False)
    return folder


@pytest.fixture(scope="session")
def independent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of ranks that step alone; not to be written to."""
    folder = tmp_path_factory.mktemp("report") / "independent"
    run(compose(*SMALL, "balancer=random", "group.kind=independent"), folder, show=False)
    return folder


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    """A copy of the runs, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "runs"))
