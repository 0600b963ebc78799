"""``dpbal-bench vllm`` measures both sides of what dpbal adds inside vLLM."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMMAND = (sys.executable, "-c", "from dpbal.bench.cli import main; main()", "vllm")


def test_every_operation_has_a_row_with_dpbal_and_one_without(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    small = ("--running", "8", "--ranks", "2,3", "--repeats", "2", "--rounds", "5")
    done = subprocess.run(
        [*COMMAND, *small, "--json", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["rows"]
    found = [(row["operation"], row["subject"], row["size"]) for row in rows if row["is_cold"]]
    assert found == [
        ("step", "vLLM", 8),
        ("step", "vLLM and dpbal", 8),
        ("step", "report", 8),
        ("step", "vLLM, dpbal and level", 8),
        ("step", "level", 8),
        ("choice", "vLLM", 2),
        ("choice", "dpbal", 2),
        ("choice", "vLLM", 3),
        ("choice", "dpbal", 3),
    ]
    assert len(rows) == 2 * len(found)
    for row in rows:
        assert 0 < row["p50_us_min"] <= row["p50_us"] <= row["p50_us_max"]
