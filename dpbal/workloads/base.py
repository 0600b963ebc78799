"""What every workload is: a source of requests, and the table that holds them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise, repeat

import numpy as np

from dpbal.core import Request
from dpbal.errors import WorkloadError
from dpbal.registry import Registry
from dpbal.workloads.lengths import MAX_TOKENS


@dataclass(frozen=True)
class Requests:
    """The requests of one run, as columns.

    Attributes:
        arrival_s: ``float64[n]``, seconds since the start, not decreasing.
        prompt_tokens: ``int64[n]``, at least 1 and at most 2**31 - 1.
        output_tokens: ``int64[n]``, in the same range; backends know it, balancers do not.
        block_hashes: ``int64[m]``, the hashes of all prompts' whole prefix blocks, one after
            another.
        hash_offsets: ``int64[n + 1]``, where each request's hashes start; all 0 without hashes.
        hash_block_tokens: Tokens that one hash stands for.
        session: ``int64[n]``, conversation of each request, -1 where it has none.
        pinned_rank: ``int64[n]``, demanded rank of each request, -1 where it demands none.
    """

    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    block_hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    hash_offsets: np.ndarray | None = None
    hash_block_tokens: int = 512
    session: np.ndarray | None = None
    pinned_rank: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise WorkloadError("the workload holds no request")
        if not (np.diff(self.arrival_s) >= 0).all():
            raise WorkloadError("arrivals are not in order of time")
        if min(self.prompt_tokens.min(), self.output_tokens.min()) < 1:
            raise WorkloadError("every request needs at least 1 prompt token and 1 output token")
        longest = max(self.prompt_tokens.max(), self.output_tokens.max())
        if longest > MAX_TOKENS:
            raise WorkloadError(
                f"a request may have at most {MAX_TOKENS} prompt tokens and as many output "
                f"tokens, got {longest}"
            )
        last = 0 if self.hash_offsets is None else self.hash_offsets[-1]
        if last != len(self.block_hashes):
            raise WorkloadError(f"hash_offsets end at {last}, of {len(self.block_hashes)} hashes")

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def has_hashes(self) -> bool:
        """Whether anything is known of shared prefixes."""
        return len(self.block_hashes) > 0

    @property
    def rate(self) -> float:
        """Mean arrivals a second over the span of the arrivals."""
        span = float(self.arrival_s[-1] - self.arrival_s[0])
        return (len(self) - 1) / span if span > 0 else float("inf")

    def at_rate(self, rate: float) -> Requests:
        """The same requests with all gaps stretched so that the mean rate is ``rate`` a second.

        Requests that all arrive at once stay so.
        """
        own = self.rate
        gaps_s = self.arrival_s - self.arrival_s[0]
        return replace(self, arrival_s=gaps_s * (own / rate) if own < float("inf") else gaps_s)

    def part(self, start: int, stop: int) -> Requests:
        """Requests ``start`` to ``stop``, the first of them arriving at 0 s."""
        hashes, offsets = self.block_hashes, self.hash_offsets
        if offsets is not None:
            offsets = offsets[start : stop + 1]
            hashes = hashes[offsets[0] : offsets[-1]]
            offsets = offsets - offsets[0]
        return replace(
            self,
            arrival_s=self.arrival_s[start:stop] - self.arrival_s[start],
            prompt_tokens=self.prompt_tokens[start:stop],
            output_tokens=self.output_tokens[start:stop],
            block_hashes=hashes,
            hash_offsets=offsets,
            session=None if self.session is None else self.session[start:stop],
            pinned_rank=None if self.pinned_rank is None else self.pinned_rank[start:stop],
        )

    def __iter__(self) -> Iterator[Request]:
        return map(
            Request,
            range(len(self)),
            self.arrival_s.tolist(),
            self.prompt_tokens.tolist(),
            repeat(None),  # a trace knows what was generated, not what was asked for
            self._hashes(),
            _optional(self.session),
            _optional(self.pinned_rank),
            repeat(self.hash_block_tokens),
        )

    def _hashes(self) -> Iterator[np.ndarray | None]:
        if self.hash_offsets is None or not self.has_hashes:
            return repeat(None)
        edges = self.hash_offsets.tolist()
        return (self.block_hashes[i:j] for i, j in pairwise(edges))


def _optional(column: np.ndarray | None) -> Iterable[int | None]:
    if column is None:
        return repeat(None)
    return [value if value >= 0 else None for value in column.tolist()]


@dataclass
class Workload(ABC):
    """A source of requests.

    Args:
        requests: How many to take at most; None takes all that a trace has.
        rate: Arrivals a second; where given, it takes the place of ``load``.
        load: Arrivals as a fraction of the rate at which the pooled reference saturates. With
            neither, a trace keeps its own times.
        allow_overload: Permit a ``load`` above 1.
    """

    requests: int | None = None
    rate: float | None = None
    load: float | None = 0.85
    allow_overload: bool = False

    def __post_init__(self) -> None:
        if self.requests is not None and self.requests < 1:
            raise ValueError(f"requests must be at least 1, got {self.requests}")
        if self.rate is not None and not self.rate > 0:
            raise ValueError(f"rate must be positive, in requests a second, got {self.rate}")
        if self.load is not None and not self.load > 0:
            raise ValueError(f"load must be positive, got {self.load}")
        is_overload = self.rate is None and self.load is not None and self.load > 1
        if is_overload and not self.allow_overload:
            raise ValueError(
                f"load {self.load} is above 1, so queues grow without end; "
                "if that is meant, add workload.allow_overload=true"
            )

    @abstractmethod
    def generate(self, seed: int) -> Requests:
        """The requests at the source's own rate; the same for the same seed.

        Raises:
            WorkloadError: If there is nothing to read, or a line of it is malformed.
        """


WORKLOADS: Registry[Workload] = Registry("workload")
