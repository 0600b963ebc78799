"""What a reader must know beside the numbers: all that makes runs less than comparable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from dpbal.comparison.effects import LOSS, Method, lost_share, match
from dpbal.comparison.grouping import Combination, listed, shown

FEW_KEYS = 3
FEW_NAMES = 4
FEW_FOLDERS = 3


def remarks(baseline: Combination, others: list[Combination]) -> list[str]:
    """One line for each thing in the way of a fair comparison."""
    everyone = [baseline, *others]
    return [
        *_settings(everyone),
        *_versions(everyone),
        *_requests(baseline, others),
        *_replicates(everyone),
        *_losses(baseline, others),
        *_unstable(everyone),
    ]


def unfinished(folders: Iterable[Path]) -> list[str]:
    """That runs are left out, if any did not end."""
    told = listed(map(str, folders), FEW_FOLDERS)
    return [f"left out, for they did not end: {told}"] if told else []


def _settings(everyone: list[Combination]) -> list[str]:
    """Differences in what a combination does not choose: workload, profile, group, SLO, backend."""
    differing: dict[str, list[str]] = {}
    for key in sorted({key for one in everyone for key in one.setting}):
        values = dict.fromkeys(one.setting.get(key) for one in everyone)
        if len(values) > 1:
            told = " / ".join(shown(value) for value in list(values)[:FEW_KEYS])
            differing.setdefault(key.partition(".")[0], []).append(f"{key} {told}")
    lines = []
    for family, keys in differing.items():
        chosen = dict.fromkeys(one.choices.get(family) for one in everyone)
        if len(chosen) > 1 and None not in chosen:
            keys = [f"{family} {' / '.join(str(name) for name in chosen)}"]
        lines.append(f"not the same {family}: {listed(keys, FEW_KEYS)}")
    backends = dict.fromkeys(str(one.setting.get("backend.name")) for one in everyone)
    if len(backends) > 1:
        lines.append(f"mixed backends: {', '.join(backends)}; what they leave out differs")
    return lines


def _versions(everyone: list[Combination]) -> list[str]:
    lines = []
    runs = [run for one in everyone for run in one.runs]
    for package in sorted({name for run in runs for name in run.result.versions}):
        found = Counter(run.result.versions.get(package, "unknown") for run in runs)
        if len(found) > 1:
            told = ", ".join(f"{version} ({count} runs)" for version, count in found.items())
            lines.append(f"not the same version of {package}: {told}")
    return lines


def _requests(baseline: Combination, others: list[Combination]) -> list[str]:
    """Where replicates cannot be paired, or only some of them."""
    strangers, halves = [], []
    for one in others:
        found = match(one, baseline)
        common = baseline.requests & one.requests
        if not common or found.method is Method.welch:
            strangers.append(one)
        elif len(common) < max(len(one.requests), len(baseline.requests)):
            halves.append(f"{one.label} {len(common)}")
    lines = []
    if strangers:
        has_interval = any(match(one, baseline).method is Method.welch for one in strangers)
        how = "compared unpaired, by Welch's interval" if has_interval else "not paired"
        lines.append(f"not the same requests as {baseline.label}'s, so {how}: {_names(strangers)}")
    if halves:
        lines.append(
            "paired on the requests that both met, further runs left out of the effect: "
            + ", ".join(halves[:FEW_NAMES])
        )
    return lines


def _replicates(everyone: list[Combination]) -> list[str]:
    lines = []
    repeated = [one for one in everyone if len(one.replicates) < len(one.runs)]
    if repeated:
        lines.append(
            "runs on the same prompts and outputs count as one replicate, whatever their seeds "
            "and arrivals (a trace has workload.window): "
            + _counted(f"{o.label} {len(o.runs)} as {len(o.replicates)}" for o in repeated)
        )
    counts = {len(one.replicates) for one in everyone}
    if len(counts) > 1:
        told = _counted(f"{one.label} {len(one.replicates)}" for one in everyone)
        lines.append(f"not the same number of replicates: {told}")
    single = [one for one in everyone if len(one.replicates) == 1]
    if single:
        lines.append(
            "one replicate has no interval and no verdict; add seeds, such as seed=0,1,2,3,4, "
            f"or windows of a trace: {_names(single)}"
        )
    return lines


def _losses(baseline: Combination, others: list[Combination]) -> list[str]:
    base = lost_share(baseline)
    differing = [one for one in others if abs(lost_share(one) - base) > LOSS]
    if not differing:
        return []
    told = _counted(f"{one.label} {lost_share(one):.1%}" for one in [baseline, *differing])
    return [
        "latencies are of finished requests, and the shares that did not finish differ, so no "
        f"latency is called better where more were lost: {told}"
    ]


def _unstable(everyone: list[Combination]) -> list[str]:
    grew = [(one, sum(run.result.unstable for run in one.runs)) for one in everyone]
    told = _counted(f"{one.label} {count} of {len(one.runs)}" for one, count in grew if count)
    return [f"unstable, so latencies depend on the length of the run: {told}"] if told else []


def _names(combinations: Iterable[Combination]) -> str:
    return _counted(one.label for one in combinations)


def _counted(names: Iterable[str]) -> str:
    return listed(names, FEW_NAMES)
