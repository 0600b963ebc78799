"""Reports by a collective: every so many steps all ranks meet, and one hands on what they say."""

from __future__ import annotations

import importlib.util
import socket
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from dpbal.core import LoadTable
from dpbal.errors import MissingExtraError
from dpbal.sharedmem import Segment
from dpbal.transports.base import TRANSPORTS, Exchange, ProcessTransport, Timing, check_group
from dpbal.transports.gather.collective import LOOPBACK, Collective, Gloo, Nccl
from dpbal.transports.gather.meeting import memory_bytes
from dpbal.transports.gather.publisher import GatherError, GatherPublisher, parts
from dpbal.transports.shm.slots import HEADER_WORDS, Slots
from dpbal.transports.shm.transport import ShmSubscriber
from dpbal.transports.shm.vectors import ShmVectors

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store


class Collectives(Enum):
    """Whose collectives ranks meet by: gloo's are between CPUs, NCCL's between GPUs."""

    gloo = "gloo"
    nccl = "nccl"


@TRANSPORTS.register("gather")
@dataclass
class Gather(ProcessTransport):
    """All ranks meet every ``interval_steps`` of their steps, and rank 0 gathers their records.

    It writes them into shared memory, where dispatchers of the host read them as those of ``shm``.
    That was the way of SGLang's PR #7379, with two differences: a record is of one size however
    many requests arrived since the last meeting, and a rank that does not come is not waited for
    for ever. It wins nothing over ``shm`` on one host. It loses where steps are long, for reports
    are as old as the last meeting, and costs every rank the time to meet. Budget vectors are those
    of ``shm``.

    When a rank does not come, or ends, the ranks meet no more: each says so once in its log, steps
    are as before, and dispatchers go on with the reports that they have.

    Args:
        interval_steps: Ranks meet at every that many of the group's steps, and when it rests; at
            least 1.
        backend: ``gloo``, or ``nccl`` where each rank has a GPU of its own.
        timeout_s: The longest that a step waits for one other rank, in seconds; rank 0 waits for
            each in turn. The first meeting, which makes the connections, up to four times as long.

    Raises:
        ValueError: For an ``interval_steps`` or ``timeout_s`` that is too small.

    Reference: https://github.com/sgl-project/sglang/pull/7379
    """

    interval_steps: int = 40
    backend: Collectives = Collectives.gloo
    timeout_s: float = 5.0

    is_collective: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.interval_steps < 1:
            raise ValueError(f"interval_steps must be at least 1, got {self.interval_steps}")
        if not self.timeout_s >= 0.001:
            raise ValueError(f"timeout_s must be at least 0.001 seconds, got {self.timeout_s}")

    @property
    def timing(self) -> Timing:
        """Every ``interval_steps`` steps, without delay.

        Only the end of all work is a meeting, not that of one rank, whose last word stands until
        the others' next: so a rank that has nothing left does not publish.
        """
        return Timing(interval_steps=self.interval_steps, publish_on_idle=False)

    def create(self, ranks: int, dispatchers: int) -> GatherExchange:
        """Make the slots of a group, and the place where its ranks find each other.

        Raises:
            ConfigError: For a group without ranks or dispatchers.
            MissingExtraError: If there is no torch.
            SharedMemoryError: If the host has no shared memory, or not enough.
        """
        check_group(ranks, dispatchers)
        _require_torch()
        return GatherExchange(Slots(ranks, dispatchers))

    def publisher(self, address: str, rank: int) -> GatherPublisher:
        """The end of a rank; ranks wait for each other in ``Publisher.step``, and not here.

        Raises:
            GatherError: If the rank's group has met before without this process, or ranks have no
                GPU and are to meet by ``nccl``.
            MissingExtraError: If there is no torch.
            SharedMemoryError: If there is nothing at the address, no such rank, or another process
                publishes for it.
        """
        _require_torch()
        if self.backend is Collectives.nccl:
            _require_gpu()
        return GatherPublisher(address, rank, self.interval_steps, self.timeout_s, self._connect)

    def _connect(self, port: int, rank: int, ranks: int, words: int) -> Collective:
        kind: type[Collective] = Gloo if self.backend is Collectives.gloo else Nccl
        return kind(port, rank, (ranks, words), self.timeout_s)

    def subscriber(self, address: str, table: LoadTable) -> ShmSubscriber:
        """The end of a dispatcher, which keeps ``table`` up to date.

        Raises:
            SharedMemoryError: If there is nothing at the address, or the table has another size.
        """
        return ShmSubscriber(parts(address)[0], table)

    def vectors(self, address: str, rank: int) -> ShmVectors:
        """The end of a rank for budget vectors, as in ``shm``.

        Raises:
            SharedMemoryError: If there is nothing at the address, no such rank, or it has one.
        """
        return ShmVectors(parts(address)[0], rank)


class GatherExchange(Exchange):
    """The slots and rings of a group, and a store on the loopback where ranks find each other."""

    def __init__(self, slots: Slots) -> None:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        self._segment = Segment.create("loads", memory_bytes(slots))
        self._segment.array(np.int64, (HEADER_WORDS,))[:] = slots.header
        # left to itself the store would listen to the whole network
        with socket.create_server((LOOPBACK, 0)) as listener:
            port = listener.getsockname()[1]
            self._store: Store | None = TCPStore(
                LOOPBACK,
                port,
                is_master=True,
                wait_for_workers=False,
                master_listen_fd=listener.detach(),
            )
        self.address = f"{self._segment.name}:{port}"

    def close(self) -> None:
        """Remove them; ranks that have met go on until they end."""
        self._segment.close()
        self._store = None


def _require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("transport=gather needs the extra: pip install 'dpbal[torch]'")
    import torch.distributed  # noqa: F401 - it takes seconds, and no step has them


def _require_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise GatherError(
            "transport.backend=nccl needs a CUDA device for each rank, and this process has none; "
            "type transport.backend=gloo"
        )
