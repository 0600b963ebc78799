"""Writes the steps of one engine to a file, and reads those of all engines back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpbal.backends.base import STEP_RECORD

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.outputs import ModelRunnerOutput

ENGINE_STEP = np.dtype(
    [
        *((name, STEP_RECORD[name]) for name in STEP_RECORD.names or ()),
        ("number", np.int64),  # steps of the rank before it, dummy ones included
        ("decode_kv_tokens", np.int64),  # in the contexts of the sequences that decode
        ("pairs", np.float64),  # query-key pairs of the prefill
        ("is_late", np.bool_),  # the host came for its result after its end
        ("looked_up_tokens", np.int64),  # of the prompts that vLLM's prefix cache was asked for
        ("hit_tokens", np.int64),  # and those that it had
        ("is_alone", np.bool_),  # limited without knowledge of the other ranks
    ]
)
"""One row a step that held tokens, times in seconds on the host's monotonic clock."""

BUFFERED_ROWS = 256


class Recorder:
    """The steps of one engine.

    Args:
        folder: Where its files go.
        rank: The engine's.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._rank = rank
        self._steps = (folder / f"steps.{rank}").open("ab")
        self._gaps = (folder / f"gaps.{rank}").open("ab")
        self._preemptions = (folder / f"preemptions.{rank}").open("ab")
        self._rows: list[np.ndarray] = []
        self._late_gaps_s: list[float] = []
        self._ends_s = [0.0]  # of the steps with tokens, counted from 1 as the batch does

    def preempt(self, request_id: str) -> None:
        """A request has been preempted."""
        self._preemptions.write(np.int64(number(request_id)).tobytes())

    def step(
        self,
        scheduled: SchedulerOutput,
        given: ModelRunnerOutput,
        report: np.ndarray,
        preemptions: int,
        is_alone: bool,
        lookups: tuple[int, int] = (0, 0),
    ) -> None:
        """A step has ended; one without tokens means that there may be time to write.

        Args:
            scheduled: What it held.
            given: What it gave.
            report: ``REPORT[1]``, what the rank has reported after it.
            preemptions: How many requests were sent back for it.
            is_alone: Whether its prefill was limited without knowledge of the other ranks.
            lookups: Tokens that the prefix cache was asked for since the step before, and those
                that it had.
        """
        from dpbal.backends.vllm.emulated.executor import EmulatedOutput

        if scheduled.total_num_scheduled_tokens == 0:
            self.flush()
            return
        if not isinstance(given, EmulatedOutput):
            raise TypeError("only steps of emulated GPUs can be recorded")
        row = np.zeros(1, ENGINE_STEP)
        step, work = given.step, given.work
        row["start_s"], row["end_s"] = step.start_s, step.end_s
        row["local_s"] = given.local_s
        row["rank"] = self._rank
        row["prefill_tokens"], row["decode_seqs"] = work.prefill_tokens, work.decode_seqs
        row["decode_kv_tokens"], row["pairs"] = work.decode_kv_tokens, work.pairs
        row["next_tokens"] = given.next_tokens
        for field in ("running", "waiting", "kv_used_tokens"):
            row[field] = report[field]
        row["preemptions"] = preemptions
        row["looked_up_tokens"], row["hit_tokens"] = lookups
        row["number"], row["is_late"], row["is_alone"] = step.number, step.is_late, is_alone
        self._rows.append(row)
        self._ends_s.append(step.end_s)
        self._late_gaps_s.extend(step.end_s - self._ends_s[before] for before in given.late)
        if len(self._rows) >= BUFFERED_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        if self._rows:
            self._steps.write(np.concatenate(self._rows).tobytes())
            self._steps.flush()
            self._preemptions.flush()
            self._rows.clear()
        if self._late_gaps_s:
            self._gaps.write(np.array(self._late_gaps_s).tobytes())
            self._gaps.flush()
            self._late_gaps_s.clear()

    def close(self) -> None:
        """Write the rest."""
        self.flush()
        self._steps.close()
        self._gaps.close()
        self._preemptions.close()


def number(request_id: str) -> int:
    """The number of a run's request from its id inside vLLM, which appends to it; -1 for others."""
    head = request_id.partition("-")[0]
    return int(head) if head.isdigit() else -1


def read(folder: Path, ranks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What all engines wrote.

    Returns:
        Their steps in order of time, ``ENGINE_STEP[n]``; the late gaps between tokens in seconds;
        and the number of a request for each time that one was preempted.
    """

    def all_of(kind: str, dtype: np.dtype | type) -> np.ndarray:
        parts = [np.fromfile(folder / f"{kind}.{rank}", dtype) for rank in range(ranks)]
        return np.concatenate(parts)

    rows = all_of("steps", ENGINE_STEP)
    rows = rows[np.lexsort((rows["rank"], rows["end_s"]))]
    return rows, all_of("gaps", np.float64), all_of("preemptions", np.int64)


def with_idle_ranks(rows: np.ndarray, ranks: int) -> np.ndarray:
    """The steps of a lockstep group with a row for each rank, idle ones included.

    Args:
        rows: ``ENGINE_STEP[n]``, the steps in which a rank had work.
        ranks: How many ranks there are.

    Returns:
        ``ENGINE_STEP[steps * ranks]``, step by step, rank by rank.
    """
    numbers, which = np.unique(rows["number"], return_inverse=True)
    whole = np.zeros((len(numbers), ranks), ENGINE_STEP)
    whole["number"] = numbers[:, None]
    whole["rank"] = np.arange(ranks)
    for field in ("start_s", "end_s"):
        times_s = np.zeros(len(numbers))
        times_s[which] = rows[field]
        whole[field] = times_s[:, None]
    whole[which, rows["rank"]] = rows
    return whole.reshape(-1)
