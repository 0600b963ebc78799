"""What every transport is: a way for load reports and budget vectors to travel, and its timing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from dpbal.core import LoadTable
from dpbal.errors import ConfigError
from dpbal.registry import Registry


class Timing(NamedTuple):
    """When a report leaves its rank and when dispatchers can see it.

    Attributes:
        interval_steps: A rank publishes after every that many of its steps.
        publish_on_prefill: A rank publishes after every step with prefill too.
        publish_on_idle: A rank publishes after the step that left it nothing to do too.
        interval_s: Dispatchers see what has arrived at multiples of this; 0 is at once.
        delay_s: Seconds from publishing to arrival.
        jitter_s: Up to this many seconds more, uniform. Reports of a rank keep their order.
        loss: Probability that a report is lost.
    """

    interval_steps: int = 1
    publish_on_prefill: bool = False
    publish_on_idle: bool = True
    interval_s: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0


@dataclass
class Transport(ABC):
    """A way for load reports to travel from ranks to dispatchers; the latest wins."""

    @property
    @abstractmethod
    def timing(self) -> Timing:
        """What the simulator makes of this transport."""


TRANSPORTS: Registry[Transport] = Registry("transport")

RING = 8
"""Steps of a wave for which a rank's budget vectors are kept."""


class Publisher(ABC):
    """A rank's end of a transport between processes.

    The rank fills in what it knows of itself and publishes it; ``epoch`` and ``version`` of the
    report are the publisher's own.

    Attributes:
        report: ``REPORT[1]``, the next report.
        received_epoch: ``int64[dispatchers]``, the rank's row of ``LoadTable.received_epoch``.
        received_sequence: ``int64[dispatchers]``, likewise.
    """

    report: np.ndarray
    received_epoch: np.ndarray
    received_sequence: np.ndarray

    @abstractmethod
    def publish(self) -> None:
        """Let dispatchers see the report and what was received, under the next version.

        Where the ranks of a transport meet, they see it when the ranks have met.
        """

    def step(self, step: int) -> None:  # noqa: B027 - most have nothing to do
        """Every rank comes to this step of the group, whether or not it has anything to do.

        Where the ranks of a transport meet, this is where they may; elsewhere nothing happens.

        Args:
            step: The same number for all ranks, and one more each time; a new wave starts at 0.
        """

    def rest(self) -> None:  # noqa: B027 - most have nothing to do
        """No rank has anything left to do, and no step follows until one has; as ``step``."""

    @abstractmethod
    def close(self) -> None:
        """The rank serves no more: dispatchers do not choose it while another serves."""


class Subscriber(ABC):
    """A dispatcher's end of a transport between processes.

    Within a few seconds a rank whose process has ended, in whatever way, is not chosen while
    another serves. Its last report stays until it is started again.
    """

    @abstractmethod
    def refresh(self) -> None:
        """Bring the dispatcher's table up to the newest reports."""

    @abstractmethod
    def ages_s(self) -> np.ndarray:
        """``float64[ranks]``: seconds since each rank's newest report; infinity for none."""

    @abstractmethod
    def close(self) -> None:
        """Look no more."""


class Vectors(ABC):
    """A rank's end of the exchange of budget vectors between processes.

    Each step every rank publishes what the others are to know of it, as the version (wave, step),
    and reads one version of all ranks. The last ``RING`` steps of each rank's wave can be read.

    A rank that starts, or closes, makes void what all have published until then. So the vectors of
    one read are always of one set of processes, and none is of one that has been replaced.

    Attributes:
        own: ``VECTOR[1]``, what this rank publishes next.
    """

    own: np.ndarray

    @abstractmethod
    def publish(self, wave: int, step: int) -> None:
        """Let all ranks read ``own`` as this version; in a wave, steps only grow.

        Raises:
            ValueError: After ``close``.
        """

    @abstractmethod
    def read(self, wave: int, step: int, vectors: np.ndarray) -> bool:
        """Fill ``vectors`` with exactly this version of every rank.

        Args:
            wave: Of the version.
            step: Likewise.
            vectors: ``VECTOR[ranks]``.

        Returns:
            False, with ``vectors`` as it was, unless all ranks have the version: one has not
            published it yet or has overwritten it, or one has started or closed since.

        Raises:
            ValueError: If ``vectors`` has another size.
        """

    @abstractmethod
    def close(self) -> None:
        """The rank publishes no more; a second call does nothing."""


class Exchange(ABC):
    """The place where the publishers and subscribers of one group meet, held by its owner.

    Attributes:
        address: What they need to know to find it, in any process of the host.
    """

    address: str

    @abstractmethod
    def close(self) -> None:
        """Remove it; a second call does nothing."""


class ProcessTransport(Transport):
    """A transport that works between real processes too, not only in the simulator.

    Attributes:
        is_collective: Whether ranks meet to exchange their reports: all of them step together, and
            say so (``Publisher.step``), or nothing arrives.
    """

    is_collective: ClassVar[bool] = False

    @property
    def reaches_hosts(self) -> bool:
        """Whether ranks and dispatchers may be on several hosts, as configured.

        ``create`` is then called on each of them with the same numbers, and gives one address.
        """
        return False

    @abstractmethod
    def create(self, ranks: int, dispatchers: int) -> Exchange:
        """Make the place where a group's reports are exchanged.

        Raises:
            DpbalError: If the host cannot provide it.
        """

    @abstractmethod
    def publisher(self, address: str, rank: int) -> Publisher:
        """The end of a rank.

        Raises:
            DpbalError: If there is nothing at the address, or no such rank.
        """

    @abstractmethod
    def subscriber(self, address: str, table: LoadTable) -> Subscriber:
        """The end of a dispatcher, which keeps ``table`` up to date.

        Raises:
            DpbalError: If there is nothing at the address, or the table has another size.
        """

    @abstractmethod
    def vectors(self, address: str, rank: int) -> Vectors:
        """The end of a rank for budget vectors, beside its publisher or without one.

        Raises:
            DpbalError: If there is nothing at the address, no such rank, or the rank has one.
        """


def check_group(ranks: int, dispatchers: int) -> None:
    """Check the size of a group.

    Raises:
        ConfigError: If it has no ranks or no dispatchers.
    """
    if min(ranks, dispatchers) < 1:
        raise ConfigError(
            f"a group has at least 1 rank and 1 dispatcher, got {ranks} and {dispatchers}"
        )
