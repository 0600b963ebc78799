"""How plain numbers get into prometheus_client, and only where they have changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, cast

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from dpbal.backends.vllm.metrics.families import FAMILIES, Family

if TYPE_CHECKING:
    from dpbal.backends.vllm.metrics.counts import Distribution

Labels = tuple[str, ...]

Combined = Literal["livemostrecent", "livesum", "livemin", "livemax"]


class Values:
    """The metrics of this process, in vLLM's registry until they are removed.

    A sample exists from the first time that its number is known.
    """

    def __init__(self) -> None:
        _unregister(family.name for family in FAMILIES)  # of an earlier engine in this process
        # each from its first number on: one without labels has a sample as soon as it is made
        self._metrics: dict[Family, Gauge | Counter] = {}
        self._histograms: dict[Family, Histogram] = {}
        self._shown: dict[tuple[Family, Labels], float] = {}
        self._children: dict[tuple[Family, Labels], Gauge | Counter] = {}
        self._counted: dict[Family, tuple[list[int], float]] = {}

    def show(self, family: Family, value: float, *labels: str) -> None:
        """Set a gauge, or bring a counter up to a number that only grows."""
        key = family, labels
        before = self._shown.get(key)
        if value == before:
            return
        child = self._children.get(key)
        if child is None:
            metric = self._metrics.get(family)
            if metric is None:
                _unregister((family.name,))  # of another engine in this process
                metric = self._metrics[family] = _make(family)
            child = self._children[key] = metric.labels(*labels) if labels else metric
        if isinstance(child, Gauge):
            child.set(value)
        else:
            # a rank that was started anew counts from 0 again
            child.inc(value if before is None or value < before else value - before)
        self._shown[key] = value

    def show_all(self, family: Family, values: Sequence[float], several: Sequence[Labels]) -> None:
        """``show`` for several values, each with its labels."""
        for value, labels in zip(values, several, strict=True):
            self.show(family, value, *labels)

    def show_distribution(self, family: Family, distribution: Distribution) -> None:
        """Bring a histogram up to what has been counted."""
        histogram = self._histograms.get(family)
        if histogram is None:
            histogram = self._histograms[family] = _histogram(family)
        counts, total = distribution.counts, distribution.total
        before, before_total = self._counted.get(family, ([0] * len(counts), 0.0))
        if counts == before:
            return
        # there is no public way to add many observations at once
        for bucket, now, then in zip(histogram._buckets, counts, before, strict=True):
            if now != then:
                bucket.inc(now - then)
        histogram._sum.inc(total - before_total)
        self._counted[family] = list(counts), total

    def remove(self) -> None:
        """Take them out of the registry."""
        for metric in [*self._metrics.values(), *self._histograms.values()]:
            if metric in REGISTRY._collector_to_names:
                REGISTRY.unregister(metric)


def _make(family: Family) -> Gauge | Counter:
    if family.combined is None:
        return Counter(family.name, family.help, family.labels)
    mode = cast("Combined", family.combined)
    return Gauge(family.name, family.help, family.labels, multiprocess_mode=mode)


def _histogram(family: Family) -> Histogram:
    return Histogram(family.name, family.help, family.labels, buckets=family.bounds or ())


def _unregister(names: Iterable[str]) -> None:
    several = set(names)
    for collector, known in list(REGISTRY._collector_to_names.items()):
        if several.intersection(known):
            REGISTRY.unregister(collector)
