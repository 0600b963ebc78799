"""Cases in which a rule that follows its caches can lose a lot."""

from __future__ import annotations

from experiments.prefix.cells import Cell

HOT = "hot_prefix"
SHORT = (
    "workload.prompt={min_tokens:1,max_tokens:4000,parts:[{share:1.0,mean_tokens:300,sigma:0.5}]}",
    "workload.output={min_tokens:1,max_tokens:4,parts:[{share:1.0,mean_tokens:2,sigma:0.5}]}",
)
"""Short questions with shorter answers, as of a classifier with a long instruction."""

RESTART_S = {"lockstep": 1000, "independent": 150}
"""When rank 3 loses its cache: about the middle of the arrivals."""


def _scenarios(kind: str) -> list[Cell]:
    dispatchers = [(f"group.dispatchers={count}",) for count in (1, 4, 16)]
    return [
        *(Cell(HOT, kind, overrides=lines) for lines in dispatchers),
        Cell(HOT, kind, overrides=SHORT),
        Cell("distinct_prompts", kind),
        Cell(HOT, kind, overrides=("workload.share=0",)),
        Cell("mooncake_like", kind, overrides=("backend.kv_capacity_tokens=140000",)),
        Cell("mooncake_like", kind, overrides=(f"backend.restarts={{3: {RESTART_S[kind]}}}",)),
        Cell("mooncake_like", kind, overrides=dispatchers[2]),
    ]


SCENARIOS = [cell for kind in RESTART_S for cell in _scenarios(kind)]
"""One hot prefix, no reuse, a small cache, a restart, several dispatchers."""

TUNED = [
    *(Cell(kind=kind) for kind in RESTART_S),
    *(Cell(HOT, kind) for kind in RESTART_S),
]
"""Where the settings were chosen."""
