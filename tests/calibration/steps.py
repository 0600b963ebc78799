"""Steps of a group whose constants are known."""

from __future__ import annotations

import dataclasses

import numpy as np

from dpbal.calibration.samples import Samples
from dpbal.step_time import StepTime

TRUE = StepTime(
    fixed_s=8e-3,
    prefill_s_per_token=50e-6,
    decode_s_per_seq=45e-6,
    kv_s_per_token=20e-9,
    attention_s_per_pair=6e-9,
    common_fixed_s=15e-3,
    common_s_per_token=150e-6,
    mixed_penalty_s=12e-3,
)


def changed(step_time: StepTime, values: dict[str, float]) -> StepTime:
    """The same with other constants."""
    made = dataclasses.replace(step_time)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def work(steps: int, ranks: int, seed: int = 0, kinds: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """``[steps, ranks, 4]``: a third decode, a third prefill, a third mixed; some ranks idle."""
    random = np.random.default_rng(seed)
    shape = (steps, ranks)
    kind = random.choice(kinds, steps)[:, None]
    decodes = np.where(kind == 1, 0, random.integers(0, 200, shape))
    context = random.lognormal(7, 0.8, shape)
    chunk = np.where(kind == 0, 0, random.integers(0, 2048, shape))
    chunk = np.where(random.random(shape) < 0.3, 0, chunk)
    before = random.lognormal(7, 1.5, shape)
    rows = np.stack([chunk, decodes, np.rint(decodes * context), chunk * (before + chunk / 2)], -1)
    return np.asarray(rows[(rows[:, :, :2].sum(axis=(1, 2)) > 0)])


def samples(
    rows: np.ndarray,
    true: StepTime = TRUE,
    noise: float = 0.0,
    seed: int = 1,
    has_local: bool = False,
) -> Samples:
    """Seconds by the known constants, with noise of this relative standard deviation."""
    random = np.random.default_rng(seed)
    local_s = np.array([[true.local_s(*rank) for rank in step] for step in rows])
    local_s *= 1 + noise * random.standard_normal(local_s.shape)
    prefills, decodes = rows[:, :, 0], rows[:, :, 1]
    mixed = np.asarray((prefills > 0).any(axis=1) & (decodes > 0).any(axis=1))
    tokens = (prefills + decodes).astype(int)
    common_s = np.array(
        [true.common_s(list(step), bool(m)) for step, m in zip(tokens, mixed, strict=True)]
    )
    common_s *= 1 + noise * random.standard_normal(len(rows))
    return Samples(rows, local_s.max(axis=1) + common_s, local_s if has_local else None)
