"""What was run, and what a reader must know before the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dpbal.comparison.grouping import Combination, listed, shown
from dpbal.comparison.load import Run
from dpbal.comparison.table import OUTCOMES, Sheet
from dpbal.console import MOST_LATE
from dpbal.report.contents import Contents, asked_load

PARTS = ("balancer", "signal", "transport", "budget", "indexer")
COMPONENTS = (*PARTS, "ledger")
SETTING = ("workload", "profile", "backend")
MOST_VALUES = 6

Fact = tuple[str, str]


@dataclass(frozen=True)
class Badge:
    """What numbers are of.

    Attributes:
        kind: ``simulated``, ``emulated`` or ``real``, by which it is coloured.
        text: In words.
    """

    kind: str
    text: str


def badges(contents: Contents) -> list[Badge]:
    """One for each ground that the numbers of the runs have."""
    return list(dict.fromkeys(badge(contents.raw(run)) for run in contents.runs))


def badge(result: dict[str, Any]) -> Badge:
    """What the numbers of a run are of."""
    if result.get("emulation") is not None:
        return Badge("emulated", "real vLLM engines, emulated GPUs")
    backend = str(result["config"].get("backend", {}).get("name"))
    if backend == "simulator":
        return Badge("simulated", "simulated")
    return Badge("real", f"real engines ({backend})")


def facts(contents: Contents) -> list[Fact]:
    """The setting that all or several runs share, with values that differ side by side."""
    raw = [contents.raw(run) for run in contents.runs]
    configs = [result["config"] for result in raw]
    groups = [config["group"] for config in configs]
    rates = [result["rate_rps"] for result in raw]
    everyone = [one for block in contents.blocks for one in block.combinations]

    def chosen(family: str) -> list[str]:
        first = [(one.choices, contents.raw(one.runs[0])) for one in everyone]
        return [names.get(family) or _name(result, family) for names, result in first]

    found = [
        ("runs", f"{len(raw)} of {len(everyone)} combination{'s' if len(everyone) > 1 else ''}"),
        *((family, _told(chosen(family))) for family in SETTING),
        ("model", _told(config["profile"].get("model") for config in configs)),
        ("device", _told(config["profile"].get("device") for config in configs)),
        ("engines", _told(one for one in map(_engines, raw) if one)),
        ("group", _told(f"{group['ranks']} {group['kind']} ranks" for group in groups)),
        ("load", _told(_sorted(asked_load(config["workload"]) for config in configs))),
        ("requests/s", _span(rates)),
        ("seeds", _told(_sorted(result["seed"] for result in raw))),
        ("windows", _told(_sorted(config["workload"].get("window") for config in configs))),
        ("objectives", _told(_slo(config["slo"]) for config in configs)),
        ("versions", _told(_versions(result["versions"]) for result in raw)),
    ]
    found += [(name, text) for name, text in shared(_parts(contents)) if name in COMPONENTS]
    return [(name, text) for name, text in found if text not in ("", "-", "null")]


def parts(contents: Contents) -> Sheet:
    """One row a combination: its parts, how often it ran and what became of the requests.

    Parts that all have in common are facts instead, and a count of nothing is left out.
    """
    sheet = _parts(contents)
    (rows,) = sheet.groups
    same = {name for name, _ in shared(sheet)}
    kept = [
        place
        for place, name in enumerate(sheet.header)
        if (name not in COMPONENTS or name not in same) and any(row[place] != "0" for row in rows)
    ]
    groups = [[[row[place] for place in kept] for row in rows]]
    return Sheet(sheet.title, [sheet.header[place] for place in kept], groups)


def shared(sheet: Sheet) -> list[Fact]:
    """Columns in which all rows say the same."""
    columns = zip(*sheet.groups[0], strict=True)
    return [
        (name, values[0])
        for name, values in zip(sheet.header, columns, strict=True)
        if len(set(values)) == 1
    ]


def _parts(contents: Contents) -> Sheet:
    rows = []
    for block in contents.blocks:
        for one in block.combinations:
            result = contents.raw(one.runs[0])
            chosen = [_name(result, family) for family in PARTS]
            ledger = str(result["config"]["ledger"]["mode"])
            label = f"{one.label} ({block.label})" if block.label else one.label
            rows.append([label, *chosen, ledger, *_outcomes(one)])
    header = ["combination", *PARTS, "ledger", "runs", *OUTCOMES, "unstable"]
    return Sheet("", header, [rows])


def notes(contents: Contents) -> list[str]:
    """Unstable runs, parts without effect, what is to be known of emulated runs."""
    return [*_unstable(contents.runs), *_idle(contents), *_emulation(contents)]


def _unstable(runs: list[Run]) -> list[str]:
    count = sum(run.result.unstable for run in runs)
    if not count:
        return []
    return [
        f"{count} of {len(runs)} runs are unstable: queues grew all along, so latencies depend on"
        " the length of the run"
    ]


def _idle(contents: Contents) -> list[str]:
    lines: Counter[str] = Counter()
    for run in contents.runs:
        lines.update(contents.raw(run).get("no_effect") or [])
    return [f"no effect in {count} of {len(contents.runs)} runs: {x}" for x, count in lines.items()]


def _emulation(contents: Contents) -> list[str]:
    found = [contents.raw(run).get("emulation") for run in contents.runs]
    emulated = [one for one in found if one is not None]
    if not emulated:
        return []
    late = [one["late_share"] for one in emulated]
    lines = [
        f"{len(emulated)} of {len(found)} runs are of {_told(one['engines'] for one in emulated)}"
        f" engines on emulated GPUs, dilation {_told(one['dilation'] for one in emulated)}: steps"
        f" take what the profile says, and the host came late to {max(late):.1%} of them at most;"
        " pooled and the split of the loss are simulated"
    ]
    if max(late) > MOST_LATE:
        lines.append(
            f"the host was too slow for {sum(share > MOST_LATE for share in late)} runs, whose"
            " times are not the profile's; run them again with a larger backend.dilation"
        )
    return lines


def _outcomes(one: Combination) -> list[str]:
    counts = [sum(getattr(run.result.requests, name) for run in one.runs) for name in OUTCOMES]
    unstable = sum(run.result.unstable for run in one.runs)
    return [f"{value:,}" for value in (len(one.runs), *counts, unstable)]


def _name(result: dict[str, Any], family: str) -> str:
    """As typed, or else the component's own name."""
    chosen = result.get("choices", {}).get(family)
    return str(chosen or (result["config"].get(family) or {}).get("name", "-"))


def _slo(slo: dict[str, float]) -> str:
    return (
        f"TTFT {slo['ttft_s']:g} s + {slo['ttft_s_per_prompt_token'] * 1e3:g} ms per prompt token,"
        f" TPOT {slo['tpot_s'] * 1e3:g} ms"
    )


def _engines(result: dict[str, Any]) -> str:
    one = result.get("emulation")
    return "" if one is None else f"{one['engines']}, dilation {one['dilation']:g}"


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _sorted(values: Iterable[Any]) -> list[Any]:
    """By size, with what is not said at the end."""
    return sorted(set(values), key=lambda value: (value is None, value or 0))


def _told(values: Iterable[Any]) -> str:
    return listed((shown(value) for value in dict.fromkeys(values)), MOST_VALUES, " / ")


def _span(values: list[float | None]) -> str:
    rates = [value for value in values if value is not None]
    if not rates:
        return "all at once"
    low, high = min(rates), max(rates)
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
