"""Counts torn reads of shared memory while other processes write there without a pause."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier

import numpy as np

from dpbal.errors import DpbalError
from dpbal.jit import njit
from dpbal.sharedmem import WORD_BYTES, Segment
from dpbal.sharedmem.atomics import load_relaxed, store_relaxed
from dpbal.transports.shm.seqlock import TRIES, read, write
from dpbal.transports.shm.slots import Slots

DISPATCHERS = 4
"""Of the slots, which makes them three lines long."""

CHUNK = 1_000_000
"""Reads or writes before the processes look whether to stop, which takes a microsecond."""


START_S = 300.0
"""Most seconds for the writers to start and compile, and to stop."""


@dataclass(frozen=True)
class TornRow:
    """What reading beside the writers found.

    Attributes:
        seqlock: Whether reader and writers used it, or copied words just so.
        writers: Processes that wrote, each its own slot.
        slot_words: Words of a record.
        reads: Copies of a slot that were looked at.
        torn: Copies with words of different writes.
        given_up: Times that the reader took no copy, as the writer was stuck in mid-write.
        writes: What the writers wrote meanwhile.
        elapsed_s: Seconds that the reads took.
    """

    seqlock: bool
    writers: int
    slot_words: int
    reads: int
    torn: int
    given_up: int
    writes: int
    elapsed_s: float


def count(reads: int, writers: int, seqlock: bool, until_torn: bool = False) -> TornRow:
    """Read the slots of writers that never pause, and count torn copies.

    Args:
        reads: How many copies to look at.
        writers: Number of writing processes.
        seqlock: Whether to use it.
        until_torn: Stop at the first chunk with a torn copy.

    Raises:
        DpbalError: If a writer ends, or the host has no shared memory.
    """
    slots = Slots(writers, DISPATCHERS)
    segment = Segment.create("torn", slots.size + WORD_BYTES * writers)
    try:
        record = np.arange(slots.record_words)
        first = segment.address + slots.start(0)
        for rank in range(writers):
            write(segment.address + slots.start(rank), record)
        with _writing(segment, slots, seqlock) as processes:
            done = torn = given_up = 0
            start_s = time.perf_counter()
            while done < reads and not (until_torn and torn):
                chunk = min(CHUNK, reads - done)
                found = _look(first, slots.slot_bytes, writers, record, chunk, seqlock)
                done, torn, given_up = done + chunk - found[1], torn + found[0], given_up + found[1]
                if not all(process.is_alive() for process in processes):
                    raise DpbalError("a writer of the torn-read check has ended; run it again")
            elapsed_s = time.perf_counter() - start_s
        writes = int(_written(segment, slots).sum())
    finally:
        segment.close()
    return TornRow(seqlock, writers, slots.record_words, done, torn, given_up, writes, elapsed_s)


@contextmanager
def _writing(segment: Segment, slots: Slots, seqlock: bool) -> Iterator[list[BaseProcess]]:
    """Processes that write, from when all of them do."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(slots.ranks + 1)
    processes: list[BaseProcess] = [
        context.Process(
            target=_write_on, args=(segment.name, slots, rank, seqlock, ready), daemon=True
        )
        for rank in range(slots.ranks)
    ]
    try:
        for process in processes:
            process.start()
        ready.wait(START_S)
        yield processes
        _stop(segment)[0] = 1
        for process in processes:
            process.join(START_S)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()


def _write_on(name: str, slots: Slots, rank: int, seqlock: bool, ready: Barrier) -> None:
    segment = Segment.attach(name)
    stop = _stop(segment)
    slot = segment.address + slots.start(rank)
    record = np.zeros(slots.record_words, np.int64)
    parent = os.getppid()
    written = 0
    _write_some(slot, record, written, 1, seqlock)  # compile
    ready.wait(START_S)
    while not stop[0] and os.getppid() == parent:
        _write_some(slot, record, written, CHUNK, seqlock)
        written += CHUNK
    _written(segment, slots)[rank] = written


def _stop(segment: Segment) -> np.ndarray:
    return segment.array(np.int64, (1,))


def _written(segment: Segment, slots: Slots) -> np.ndarray:
    return segment.array(np.int64, (slots.ranks,), slots.size)


@njit
def _write_some(slot: int, record: np.ndarray, start: int, writes: int, seqlock: bool) -> None:
    """Write records whose words tell which write they are of, and their place."""
    for number in range(start, start + writes):
        for word in range(record.size):
            record[word] = number + word
        if seqlock:
            write(slot, record)
        else:
            for word in range(record.size):
                store_relaxed(slot + (1 + word) * WORD_BYTES, record[word])


@njit
def _look(
    slots: int, slot_bytes: int, ranks: int, record: np.ndarray, reads: int, seqlock: bool
) -> tuple[int, int]:
    """Read slots in turn, and count copies that are torn, and copies that were given up."""
    torn = given_up = 0
    for number in range(reads):
        slot = slots + number % ranks * slot_bytes
        if seqlock:
            if read(slot, record, TRIES) & 1:
                given_up += 1
                continue
        else:
            for word in range(record.size):
                record[word] = load_relaxed(slot + (1 + word) * WORD_BYTES)
        for word in range(1, record.size):
            if record[word] != record[0] + word:
                torn += 1
                break
    return torn, given_up
