"""What the level budget gains in lockstep groups, beside peers that were tuned on other windows.

    DPBAL_TRACES=FOLDER python -m experiments.level.run            # all tables
    DPBAL_TRACES=FOLDER python -m experiments.level.run --only gap # those of one question

Policies meet the same requests in every window. A setting is chosen on windows 0 and 1 (seeds 0 and
1) and reported on windows 2 and 3 (seeds 2 to 6); ``level`` keeps its defaults everywhere.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import polars

from dpbal.composition import compose
from experiments import questions
from experiments.level.cells import TRACES, Cell, run
from experiments.level.policies import (
    CAPS_S,
    LEVEL,
    LEVEL_POLICY,
    OTHER_BALANCERS,
    PEERS,
    ROUND_ROBIN,
    Policy,
)
from experiments.level.tables import goodput_table, table

FITTED = "deepseek_v3_h200"
LOADS = (0.5, 0.7, 0.85, 0.95)
PENALTIES_S = (0.008, 0.1, 0.25)
DEADLINES_S = (None, 8.0, 6.0, 5.0, 4.0, 3.0, 2.5, 2.0)
GOODPUT_LOADS = {
    "azure_conv": (0.6, 0.7, 0.75, 0.8, 0.85, 0.9),
    "azure_code": (0.05, 0.1, 0.15, 0.2, 0.25),
    "mooncake_conversation": (0.3, 0.4, 0.5, 0.55, 0.6, 0.65),
}
TARGET_S = 0.095
"""Time per token that the level aims at, a little under the 0.1 s of the objective."""

Job = tuple[Cell, int, tuple[str, ...] | None]


def _penalty(seconds: float) -> tuple[str, ...]:
    return (f"profile.mixed_penalty_s={seconds}",) if seconds else ()


def gap() -> list[tuple[Cell, list[Policy]]]:
    """All peers at 85 % load: three traces, two profiles, three penalties."""
    cells = [Cell(trace, profile) for trace, profile in product(TRACES, ("lds_prototype", FITTED))]
    cells += [
        Cell(trace, overrides=_penalty(penalty_s))
        for trace, penalty_s in product(TRACES, PENALTIES_S)
    ]
    return [(cell, [*PEERS, *OTHER_BALANCERS, LEVEL_POLICY]) for cell in cells]


def loads() -> list[tuple[Cell, list[Policy]]]:
    """From half load to nearly all."""
    chosen = [p for p in PEERS if p.name in ("least_prefill", "least_prefill + time_cap")]
    heavier = Policy.of("least_prefill + level, ttft_weight 16", (*LEVEL, "budget.ttft_weight=16"))
    return [
        (Cell(trace, profile, load), [*chosen, LEVEL_POLICY, heavier])
        for trace, profile, load in product(TRACES, ("lds_prototype", FITTED), LOADS)
    ]


def robust() -> list[tuple[Cell, list[Policy]]]:
    """More ranks, later vectors, wrong constants, padding."""
    variants = {
        "lag 0": ("backend.vector_lag=0",),
        "lag 1 (default)": (),
        "lag 2": ("backend.vector_lag=2",),
    }
    lags = [Policy.of(f"level, {name}", (*LEVEL, *lines)) for name, lines in variants.items()]
    profile = compose("profile=lds_prototype").profile
    for factor in (0.5, 2.0):
        for part, names in {
            "prefill": ("prefill_s_per_token", "attention_s_per_pair"),
            "decodes": ("decode_s_per_seq", "kv_s_per_token"),
        }.items():
            # the profile says so much for what really takes the cell's time
            truth = ", ".join(f"{name}: {1 / factor}" for name in names)
            believed = [f"profile.{name}={factor * profile[name]}" for name in names]
            wrong = (*LEVEL, *believed, f"backend.true_cost={{{truth}}}")
            lags += [
                Policy.of(f"level, {part} taken for {factor:g}x", wrong),
                Policy.of(
                    f"level, {part} taken for {factor:g}x, not learning",
                    (*wrong, "budget.learns=false"),
                ),
            ]
    sizes = [
        (Cell(trace, overrides=(f"group.ranks={ranks}",)), [LEVEL_POLICY])
        for trace, ranks in product(("azure_conv", "azure_code"), (32, 72))
    ]
    padded = Cell("azure_conv", overrides=("profile.pad_to_largest=true",))
    return [
        *((Cell(trace), lags) for trace in ("azure_conv", "azure_code")),
        *sizes,
        (padded, [LEVEL_POLICY]),
    ]


def reasoning() -> list[tuple[Cell, list[Policy]]]:
    """The trade-off between the first tokens of long prompts and everybody's other tokens."""
    deadlines = [
        Policy.of(
            f"level, deadline {'none' if d is None else f'{d:g} s'}",
            (*LEVEL, f"budget.ttft_deadline_s={'null' if d is None else d}"),
        )
        for d in DEADLINES_S
    ]
    peers = [p for p in PEERS if "time_cap" in p.name or "aligned" in p.name]
    return [
        (Cell("reasoning", profile, load), [*peers, *deadlines])
        for profile, load in product(("lds_prototype", FITTED), (0.5, 0.85))
    ]


def goodput() -> list[tuple[Cell, list[Policy]]]:
    """Requests that meet both objectives, by load."""
    caps = [
        Policy.of(
            f"time_cap {cap_s:g} s",
            ("balancer=least_prefill", "budget=time_cap", f"budget.step_s={cap_s}"),
        )
        for cap_s in CAPS_S
    ]
    aimed = Policy.of(f"level, tpot_s {TARGET_S:g}", (*LEVEL, f"budget.tpot_s={TARGET_S}"))
    return [
        (Cell(trace, load=load), [*caps, LEVEL_POLICY, aimed])
        for trace, at in GOODPUT_LOADS.items()
        for load in at
    ]


QUESTIONS = {
    "gap": gap,
    "loads": loads,
    "robust": robust,
    "reasoning": reasoning,
    "goodput": goodput,
}


def _draws(cell: Cell) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Windows or seeds for tuning, and those for reporting."""
    return ((0, 1), (2, 3)) if cell.is_trace else ((0, 1), (2, 3, 4, 5, 6))


def answer(question: str, pool: ProcessPoolExecutor) -> polars.DataFrame:
    """All rows of a question: every policy with its chosen setting in every window or seed."""
    plan = QUESTIONS[question]()
    tuning: dict[Job, dict[str, Any]] = {}
    jobs: list[Job] = []
    for cell, policies in plan:
        if any(len(policy.settings) > 1 for policy in policies):
            settings = {
                s for policy in policies if len(policy.settings) > 1 for s in policy.settings
            }
            settings.add(ROUND_ROBIN.settings[0])
            jobs += [(cell, draw, s) for draw in _draws(cell)[0] for s in sorted(settings)]
    tuning = dict(zip(jobs, pool.map(run, *zip(*jobs, strict=True)), strict=True)) if jobs else {}
    chosen = {
        (cell, policy.name): _best(cell, policy, tuning)
        for cell, policies in plan
        for policy in (ROUND_ROBIN, *policies)
    }
    shown: list[tuple[str, Job]] = []
    for cell, policies in plan:
        for draw in _draws(cell)[1]:
            shown.append(("pooled", (cell, draw, None)))
            shown += [
                (policy.name, (cell, draw, chosen[cell, policy.name]))
                for policy in (ROUND_ROBIN, *policies)
            ]
    rows = []
    results = pool.map(run, *zip(*(job for _, job in shown), strict=True))
    for (name, (cell, draw, setting)), result in zip(shown, results, strict=True):
        rows.append(
            {
                "question": question,
                "workload": cell.workload,
                "profile": cell.profile,
                "load": cell.load,
                "overrides": " ".join(cell.overrides),
                "draw": draw,
                "policy": name,
                "setting": " ".join(setting or ()),
                **result,
            }
        )
    return polars.DataFrame(rows)


def _best(cell: Cell, policy: Policy, tuning: dict[Job, dict[str, Any]]) -> tuple[str, ...]:
    """The setting with the least E2E latency whose first tokens come as soon as round robin's.

    Where none keeps to that, the one whose first tokens come soonest.
    """
    if len(policy.settings) == 1:
        return policy.settings[0]
    draws = _draws(cell)[0]

    def total(setting: tuple[str, ...], metric: str) -> float:
        return float(sum(tuning[cell, draw, setting][metric] for draw in draws))

    allowed_s = total(ROUND_ROBIN.settings[0], "TTFT s")
    fitting = [s for s in policy.settings if total(s, "TTFT s") <= allowed_s]
    if not fitting:
        return min(policy.settings, key=lambda s: total(s, "TTFT s"))
    return min(fitting, key=lambda s: total(s, "E2E s"))


if __name__ == "__main__":
    questions.main(
        __doc__ or "",
        Path(__file__).parent,
        QUESTIONS,
        answer,
        lambda question, rows: (
            goodput_table(rows) if question == "goodput" else table(question, rows)
        ),
    )
