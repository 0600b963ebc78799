"""Which rule places requests best where each rank has a prefix cache of its own.

    DPBAL_TRACES=FOLDER python -m experiments.prefix.run               # all tables
    DPBAL_TRACES=FOLDER python -m experiments.prefix.run --only rules  # those of one question

All rules meet the same requests in every window or seed. What dpbal's rule has to be set to was
chosen on windows 0 and 1 (seeds 0 and 1; ``--only tuning``); everything else is reported on windows
2 to 4 (seeds 2 to 4). Peers keep their own defaults.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import polars

from experiments import questions
from experiments.prefix.cells import Cell, run
from experiments.prefix.rules import BLIND, KNOWLEDGE, OURS, RULES, Rule
from experiments.prefix.stress import SCENARIOS, TUNED
from experiments.prefix.tables import table

LOADS = (0.5, 0.7, 0.85)
TUNING = (0, 1)
REPORTED = (2, 3, 4)
PATIENCES = ("null", "2", "4", "8", "12", "16")
DECODED = (0, 100, 200, 400)

Plan = list[tuple[Cell, dict[str, Rule]]]


def rules() -> Plan:
    """Every rule, in lockstep and alone, from half load to nearly all; a trace and its twin."""
    kinds = ("lockstep", "independent")
    cells = [Cell(kind=kind, load=load) for kind, load in product(kinds, LOADS)]
    cells += [Cell(kind="fitted"), *(Cell("mooncake_like", kind) for kind in kinds)]
    return [(cell, RULES) for cell in cells]


def knowledge() -> Plan:
    """What each way of knowing costs, for one dispatcher and for four."""
    several = ((), ("group.dispatchers=4",))
    cells = [
        Cell(kind=kind, overrides=lines)
        for kind, lines in product(("lockstep", "independent"), several)
    ]
    known = {name: (*RULES[OURS], *lines) for name, lines in KNOWLEDGE.items()}
    return [(cell, known) for cell in cells]


def stress() -> Plan:
    """Cases in which a rule that follows its caches can lose a lot."""
    names = (BLIND, "cache_aware", "llm_d", "lmetric", OURS)
    compared = {name: RULES[name] for name in names}
    return [(cell, compared) for cell in SCENARIOS]


def tuning() -> Plan:
    """Guard and signal, on windows and seeds that nothing is reported on."""
    compared = {
        BLIND: RULES[BLIND],
        **{f"patience {p}": (*RULES[OURS], f"balancer.patience={p}") for p in PATIENCES},
        **{
            f"{tokens} tokens' decoding": (*RULES[OURS], f"signal.terms.decode_load={tokens}")
            for tokens in DECODED
        },
    }
    return [(cell, compared) for cell in TUNED]


QUESTIONS = {"tuning": tuning, "rules": rules, "knowledge": knowledge, "stress": stress}


def answer(question: str, pool: ProcessPoolExecutor) -> polars.DataFrame:
    """All rows of a question: every rule in every window or seed, and the pooled machine."""
    draws = TUNING if question == "tuning" else REPORTED
    jobs: list[tuple[str, Cell, int, Rule | None]] = []
    for cell, compared in QUESTIONS[question]():
        for draw in draws:
            jobs.append(("pooled", cell, draw, None))
            jobs += [(name, cell, draw, rule) for name, rule in compared.items()]
    results = pool.map(run, *zip(*(job[1:] for job in jobs), strict=True))
    rows: list[dict[str, Any]] = []
    for (name, cell, draw, rule), result in zip(jobs, results, strict=True):
        rows.append(
            {
                "workload": cell.workload,
                "kind": cell.kind,
                "load": cell.load,
                "overrides": " ".join(cell.overrides),
                "draw": draw,
                "rule": name,
                "setting": " ".join(rule or ()),
                **result,
            }
        )
    return polars.DataFrame(rows, infer_schema_length=None)


if __name__ == "__main__":
    questions.main(__doc__ or "", Path(__file__).parent, QUESTIONS, answer, table)
