"""What every trace is: a file of requests, read whole and cut into windows."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from dpbal.errors import WorkloadError
from dpbal.workloads.base import Requests, Workload

FOLDER_VARIABLE = "DPBAL_TRACES"


@dataclass
class Trace(Workload):
    """Replay of the requests in a file, in order of time.

    Rows that are out of order are sorted; rows of one time stay in the file's order.

    Args:
        path: The file; None takes the published file, from the folder that the environment
            variable DPBAL_TRACES names.
        windows: Number of disjoint windows of equally many requests that the trace is cut into.
        window: Which of them to replay, from 0, its first request arriving at 0 s.
    """

    published_file: ClassVar[str] = ""
    """Name of the file as published, or empty where there is none."""
    published_in: ClassVar[str] = ""
    """Dataset that holds it."""

    path: str | None = None
    windows: int = 1
    window: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.windows < 1:
            raise ValueError(f"windows must be at least 1, got {self.windows}")
        if self.window is None and self.windows > 1:
            raise ValueError(
                f"windows={self.windows} says nothing of which to replay; "
                f"add workload.window=0 (0 to {self.windows - 1})"
            )
        if self.window is not None and not 0 <= self.window < self.windows:
            raise ValueError(
                f"window must be from 0 to {self.windows - 1}, as windows={self.windows}; "
                f"got {self.window}"
            )

    def generate(self, seed: int) -> Requests:
        """The requests of the window at the file's own times; the first arrives at 0 s.

        Raises:
            WorkloadError: If the file is not there, is empty, or a line of it is malformed.
        """
        requests = self.read(self._find(), seed)
        count, window = len(requests), self.window or 0
        start, stop = (count * edge // self.windows for edge in (window, window + 1))
        if start == stop:
            raise WorkloadError(
                f"window {window} of {self.windows} is empty, the trace holds {count} requests"
            )
        if self.requests is not None:
            stop = min(stop, start + self.requests)
        return requests.part(start, stop)

    @abstractmethod
    def read(self, path: Path, seed: int) -> Requests:
        """All requests of the file, in order of time."""

    def _find(self) -> Path:
        if self.path is not None:
            path = Path(self.path).expanduser()
            if not path.is_file():
                raise WorkloadError(f"workload.path={self.path} is not a file")
            return path
        if not self.published_file:
            raise WorkloadError("this workload reads a file of your own; add workload.path=FILE")
        wanted = f"{self.published_file} (from {self.published_in})"
        folder = os.environ.get(FOLDER_VARIABLE)
        if not folder:
            raise WorkloadError(
                f"set {FOLDER_VARIABLE} to the folder that holds {wanted}, "
                "or add workload.path=FILE"
            )
        path = Path(folder).expanduser() / self.published_file
        if not path.is_file():
            raise WorkloadError(f"{FOLDER_VARIABLE}={folder} does not hold {wanted}")
        return path


def in_order(
    arrival_s: Sequence[float],
    prompt_tokens: Sequence[int],
    output_tokens: Sequence[int],
    *,
    sessions: Sequence[int | str | None] | None = None,
    block_hashes: Sequence[Sequence[int]] | None = None,
    hash_block_tokens: int = 512,
) -> Requests:
    """Columns of a file as requests, sorted by arrival; equal arrivals keep their order.

    A hash of a last, partly filled block is dropped, because engines cache whole blocks only.
    Sessions are numbered as they appear; None and the empty string are no session.
    """
    arrivals = np.array(arrival_s, np.float64)
    prompts = np.array(prompt_tokens, np.int64)
    outputs = np.array(output_tokens, np.int64)
    order = np.argsort(arrivals, kind="stable")
    session = None
    if sessions is not None and any(name not in (None, "") for name in sessions):
        numbers: dict[int | str | None, int] = {None: -1, "": -1}
        for name in sessions:
            numbers.setdefault(name, len(numbers) - 2)
        session = np.array([numbers[name] for name in sessions], np.int64)[order]
    hashes, offsets = np.zeros(0, np.int64), None
    if block_hashes is not None:
        known = [block_hashes[i][: prompt_tokens[i] // hash_block_tokens] for i in order.tolist()]
        offsets = np.concatenate([[0], np.cumsum([len(blocks) for blocks in known])])
        hashes = np.fromiter((block for blocks in known for block in blocks), np.int64, offsets[-1])
    return Requests(
        arrival_s=arrivals[order],
        prompt_tokens=prompts[order],
        output_tokens=outputs[order],
        block_hashes=hashes,
        hash_offsets=offsets,
        hash_block_tokens=hash_block_tokens,
        session=session,
    )


def too_many_hashes(prompt_tokens: int, hashes: int, hash_block_tokens: int) -> str | None:
    """Say so if a prompt has more hashes than blocks."""
    blocks = -(-prompt_tokens // hash_block_tokens)
    if hashes <= blocks:
        return None
    return (
        f"expected at most {blocks} hashes, one for each {hash_block_tokens} of {prompt_tokens} "
        f"prompt tokens, got {hashes}"
    )
