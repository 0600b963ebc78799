"""Groups of torch's by which ranks meet, apart from any other group of their processes."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dpbal.transports.gather.publisher import ROOT

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store, Work

LOOPBACK = "127.0.0.1"


class Collective(ABC):
    """A rank's end of a group of torch's that is apart from any other of its process.

    Args:
        port: Of the store where ranks find each other.
        rank: Whose end it is.
        shape: Of the array of all records: ranks, words.
        timeout_s: The longest to wait for other ranks.

    Raises:
        RuntimeError: If they do not come.
    """

    device: ClassVar[str]

    def __init__(self, port: int, rank: int, shape: tuple[int, int], timeout_s: float) -> None:
        import torch

        self._rank, self._ranks = rank, shape[0]
        self._timeout = timedelta(seconds=timeout_s)
        self._own = torch.zeros(shape[1], dtype=torch.int64, device=self.device)
        all_ = torch.zeros(shape, dtype=torch.int64, device=self.device)
        self._all, self._rows = all_, list(all_.unbind(0)) if rank == ROOT else []
        self._group = _in_time(partial(self._find_others, port), 2 * timeout_s)

    def _find_others(self, port: int) -> Any:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        store = TCPStore(LOOPBACK, port, timeout=self._timeout, wait_for_workers=False)
        return self._make(store)

    def gather(self, record: np.ndarray) -> np.ndarray | None:
        """Give this rank's record, ``int64[words]``, and of rank 0 get those of all.

        Raises:
            RuntimeError: If a rank does not come in time, or has ended.
        """
        import torch

        self._own.copy_(torch.from_numpy(record))
        self._wait(self._group.gather(self._rows, self._own, ROOT))
        return self._all.cpu().numpy() if self._rank == ROOT else None

    @abstractmethod
    def _make(self, store: Store) -> Any: ...

    @abstractmethod
    def _wait(self, work: Work) -> None: ...


class Gloo(Collective):
    """Between CPUs, over the loopback."""

    device = "cpu"

    def _make(self, store: Store) -> Any:
        from torch.distributed import ProcessGroupGloo

        options: Any = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._devices = [ProcessGroupGloo.create_device(hostname=LOOPBACK)]
        options._timeout = self._timeout
        return ProcessGroupGloo(store, self._rank, self._ranks, options)

    def _wait(self, work: Work) -> None:
        work.wait()


class Nccl(Collective):
    """Between GPUs, the current one of each rank."""

    device = "cuda"

    def _make(self, store: Store) -> Any:
        from torch.distributed import ProcessGroupNCCL

        options = ProcessGroupNCCL.Options()
        # at the end of this time NCCL's watchdog would end the rank's process, so we look ourselves
        options._timeout = timedelta(days=365)
        return ProcessGroupNCCL(store, self._rank, self._ranks, options)

    def _wait(self, work: Work) -> None:
        end_s = time.monotonic() + self._timeout.total_seconds()
        while not work.is_completed():
            if time.monotonic() > end_s:
                self._group.abort()
                raise RuntimeError("the GPUs of the ranks have not exchanged their records in time")
            time.sleep(0)


def _in_time(connect: Callable[[], Any], timeout_s: float) -> Any:
    """What ``connect`` gives, in a thread: torch waits without end for a store that is stopped."""
    made: list[Any] = []
    errors: list[RuntimeError] = []

    def run() -> None:
        try:
            made.append(connect())
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if not made:
        raise RuntimeError("the process that made the exchange does not answer")
    return made[0]
