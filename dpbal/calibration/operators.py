"""Puts steps of a model together from the times of its operators."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod

import numpy as np
import polars as pl

from dpbal.calibration.batches import Decode, Prefill, work
from dpbal.calibration.samples import WORK, Samples
from dpbal.calibration.tables import Tables

MIN_TOKENS = 64
"""Of a prefill that is looked at."""

MIN_CONTEXT = 1024
"""Of a chunk; shorter prompts go through another kernel, so differences mean nothing."""

MAX_SEQUENCES = 512
CONTEXTS = range(128, 16_384 + 1)


class Operators(ABC):
    """A model whose attention is measured over batch and length.

    Args:
        tables: Of the system.
        ranks: That share the common part.
        prefill: Rows of the table of prefill attention, one layer: ``batch_size``, ``isl`` and
            ``latency`` in ms; where several kernels were measured, the fastest counts.
        decode: Of decode attention, likewise with ``step``, tokens in the context.
    """

    def __init__(
        self, tables: Tables, ranks: int, prefill: pl.DataFrame, decode: pl.DataFrame
    ) -> None:
        self.tables = tables
        self.ranks = ranks
        self._prefill_s = _seconds(prefill, "isl")
        self._decode_s = _seconds(decode, "step")

    @abstractmethod
    def local_s(self, prefill: Prefill | None, decode: Decode | None) -> float:
        """Seconds of a rank's own part of a step."""

    @abstractmethod
    def common_s(self, tokens: int) -> float:
        """Seconds of the part of a step that all ranks share, for so many tokens of the group."""

    def attention_s(self, prefill: Prefill | None, decode: Decode | None) -> float:
        """Seconds of a layer's attention, or attention module.

        No table holds a chunk after a context: it is what two whole prompts differ by, plus what a
        prompt of a single token costs.
        """
        seconds = 0.0
        if prefill:
            prompts, begun = prefill.prompts, prefill.context
            seconds += self._prefill_s[prompts, begun + prefill.length]
            if begun:
                seconds += self._prefill_s[prompts, 1] - self._prefill_s[prompts, begun]
        if decode:
            seconds += self._decode_s[decode.sequences, decode.context]
        return seconds

    def prefills(self, max_tokens: int) -> list[Prefill]:
        """The prefills that the table covers, of fresh prompts and of chunks after a context.

        Args:
            max_tokens: Of one of them.
        """
        measured = [Prefill(prompts, length) for prompts, length in self._prefill_s]
        chunks = [
            Prefill(whole.prompts, whole.length - begun.length, begun.length)
            for begun in measured
            for whole in measured
            if whole.prompts == begun.prompts
            and whole.length > begun.length >= MIN_CONTEXT
            and (whole.prompts, 1) in self._prefill_s
        ]
        return [
            prefill for prefill in measured + chunks if MIN_TOKENS <= prefill.tokens <= max_tokens
        ]

    def decodes(self, max_kv_tokens: int) -> list[Decode]:
        """The decodes that the table covers and that fit into so many tokens of KV cache."""
        measured = [Decode(sequences, context) for sequences, context in self._decode_s]
        return [
            decode
            for decode in measured
            if decode.sequences <= MAX_SEQUENCES
            and decode.context in CONTEXTS
            and decode.kv_tokens <= max_kv_tokens
        ]

    def samples(self, max_tokens: int, max_kv_tokens: int) -> Samples:
        """Steps in which every rank does the same: each decode, each prefill, and all their pairs.

        Args:
            max_tokens: Of a rank's prefill.
            max_kv_tokens: Of its KV cache.
        """
        prefills = self.prefills(max_tokens)
        decodes = self.decodes(max_kv_tokens)
        steps: list[tuple[Prefill | None, Decode | None]] = [
            *((prefill, None) for prefill in prefills),
            *((None, decode) for decode in decodes),
            *itertools.product(prefills, decodes),
        ]
        rows = np.array([work(*step) for step in steps]).reshape(-1, len(WORK))
        local_s = np.array([self.local_s(prefill, decode) for prefill, decode in steps])
        tokens = rows[:, :2].sum(axis=1) * self.ranks
        common_s = np.array([self.common_s(int(count)) for count in tokens])
        return Samples(rows[:, None, :], local_s + common_s, local_s[:, None])


def _seconds(rows: pl.DataFrame, length: str) -> dict[tuple[int, int], float]:
    """Seconds of each measured batch and length; the fastest kernel's."""
    fastest = rows.group_by("batch_size", length).agg(pl.col("latency").min()).sort(pl.all())
    return {(batch, at): 1e-3 * latency for batch, at, latency in fastest.iter_rows()}
