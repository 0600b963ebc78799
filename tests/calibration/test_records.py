"""For tests/calibration/, once ENGINE_STEP has decode_kv_tokens and pairs (recorder.patch)."""

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
