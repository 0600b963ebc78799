"""The metrics that can be compared: where a result holds them, and which way is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpbal.comparison.load import Result
from dpbal.errors import ConfigError, unknown


@dataclass(frozen=True)
class Metric:
    """A number of one run.

    Attributes:
        name: As typed.
        label: As shown.
        field: Key in ``result.json``.
        statistic: Key below it, or None.
        unit: As shown, after ``scale``.
        scale: From the unit of ``result.json`` to that shown.
        digits: Shown after the point.
        lower_is_better: Which way is better.
        is_share: Whether it is a share, whose change is shown in points and not as a ratio.
        of_finished: Whether only finished requests count in it, so that losing some flatters it.
    """

    name: str
    label: str
    field: str
    statistic: str | None
    unit: str
    scale: float
    digits: int
    lower_is_better: bool = True
    is_share: bool = False
    of_finished: bool = False

    def of(self, result: Result) -> float | None:
        """Its value in a result, in the result's own unit; None where it was not measured."""
        value = getattr(result, self.field)
        found: float | None = value if self.statistic is None else getattr(value, self.statistic)
        return found


def _latencies() -> list[Metric]:
    kinds = (("TTFT", "s", 1.0, 3), ("TPOT", "ms", 1e3, 1), ("ITL", "ms", 1e3, 1))
    found = []
    for label, unit, scale, digits in (*kinds, ("E2E", "s", 1.0, 2)):
        short = label.lower()
        for statistic in ("mean", "p50", "p90", "p99"):
            found.append(
                Metric(
                    f"{short}_{statistic}",
                    f"{label} {statistic}",
                    f"{short}_s",
                    statistic,
                    unit,
                    scale,
                    digits,
                    of_finished=True,
                )
            )
    return found


def _rate(name: str, label: str, unit: str, digits: int) -> Metric:
    return Metric(name, label, name, None, unit, 1.0, digits, lower_is_better=False)


def _share(name: str, label: str, lower_is_better: bool) -> Metric:
    return Metric(name, label, name, None, "%", 100.0, 1, lower_is_better, is_share=True)


METRICS = {
    metric.name: metric
    for metric in (
        *_latencies(),
        _rate("output_tokens_per_s", "output", "tok/s", 0),
        _rate("goodput_rps", "goodput", "req/s", 2),
        _share("good_share", "good share", lower_is_better=False),
        _share("straggler_share", "straggler share", lower_is_better=True),
        _share("prefix_hit_share", "prefix hits", lower_is_better=False),
        Metric("duration_s", "duration", "duration_s", None, "s", 1.0, 1),
    )
}
"""All metrics by name."""

DEFAULT = (
    "ttft_mean",
    "ttft_p99",
    "tpot_mean",
    "itl_p99",
    "e2e_mean",
    "output_tokens_per_s",
    "goodput_rps",
    "straggler_share",
)
"""Those compared where none are named; the same as ``dpbal-run`` prints."""


def choose(names: Sequence[str] | None) -> list[Metric]:
    """The metrics of these names, each once, or the default ones.

    Raises:
        ConfigError: For a name that is not known, or none at all.
    """
    if names is not None and not names:
        raise ConfigError(f"no metric is named; there are {', '.join(METRICS)}")
    for name in names or ():
        if name not in METRICS:
            raise ConfigError(unknown("metric", name, METRICS))
    return [METRICS[name] for name in dict.fromkeys(names or DEFAULT)]
