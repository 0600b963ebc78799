"""What every test may ask for, and how hypothesis runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("dpbal", deadline=None)
settings.load_profile("dpbal")


@pytest.fixture(scope="session")
def traces() -> Path:
    """The folder of published traces; the test is skipped where there is none."""
    folder = os.environ.get("DPBAL_TRACES")
    if not folder:
        pytest.skip("DPBAL_TRACES is not set: no published traces to replay")
    return Path(folder)
