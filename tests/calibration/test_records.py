from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpbal.backends.vllm.recorder import ENGINE_STEP
from dpbal.calibration.fit import ALL, fit
from dpbal.calibration.measured import read
from dpbal.calibration.samples import WORK
from dpbal.modes import GroupKind
from tests.calibration.steps import TRUE, samples, work


def test_the_records_of_engines_give_the_constants_back(tmp_path: Path) -> None:
    measured = samples(work(300, 4), has_local=True)
    assert measured.local_s is not None
    dilation = 3.0
    for rank in range(4):
        steps = np.flatnonzero(measured.is_busy[:, rank])
        rows = np.zeros(len(steps), ENGINE_STEP)
        rows["rank"], rows["number"] = rank, steps
        rows["end_s"] = dilation * measured.step_s[steps]
        rows["local_s"] = measured.local_s[steps, rank]
        for at, name in enumerate(WORK):
            rows[name] = measured.work[steps, rank, at]
        late = np.zeros(1, ENGINE_STEP)
        late["rank"], late["number"], late["is_late"], late["end_s"] = rank, 10**6, True, 99.0
        late["decode_seqs"] = 1
        (tmp_path / f"steps.{rank}").write_bytes(np.concatenate([rows, late]).tobytes())
    found = fit(read([tmp_path], GroupKind.lockstep, dilation), ALL, TRUE)
    for name in ALL:
        assert found.values[name] == pytest.approx(getattr(TRUE, name), rel=1e-3), name


@pytest.mark.parametrize(("kind", "counted"), [("lockstep", 20), ("independent", 50)])
def test_a_late_rank_takes_its_lockstep_step_with_it(
    kind: str, counted: int, tmp_path: Path
) -> None:
    for rank in range(2):
        rows = np.zeros(30, ENGINE_STEP)
        rows["rank"], rows["number"], rows["end_s"] = rank, np.arange(30), 1.0
        rows["decode_seqs"] = rows["decode_kv_tokens"] = 1
        rows["local_s"] = 0.5
        rows["is_late"] = (rank == 1) & (np.arange(30) % 3 == 0)
        rows.tofile(tmp_path / f"steps.{rank}")
    steps = read([tmp_path], GroupKind(kind), 1.0)
    assert len(steps) == counted
    assert steps.is_busy.all()
