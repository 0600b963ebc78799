"""What an emulated model knows of the requests in its batch, and the work that a step holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput

TOKEN = 7
"""What an emulated model says, always."""


class Work(NamedTuple):
    """What one step of a rank computes, in the terms of ``StepTime.local_s``.

    Attributes:
        prefill_tokens: Prompt tokens, recomputed ones among them.
        decode_seqs: Sequences that compute one token after their first.
        decode_kv_tokens: Tokens in their contexts, the new one included.
        pairs: Query-key pairs of the prefill.
    """

    prefill_tokens: int = 0
    decode_seqs: int = 0
    decode_kv_tokens: int = 0
    pairs: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens in the step."""
        return self.prefill_tokens + self.decode_seqs


class _Sequence(msgspec.Struct, gc=False):
    size: int  # prompt and output tokens so far
    computed: int
    is_decoding: bool = False
    last_step: int = -1  # in which it emitted a token


class Sampled(NamedTuple):
    """What a step gives.

    Attributes:
        ids: Requests of the step, in the scheduler's order.
        tokens: New tokens of each.
        next_tokens: How many of them follow a token of the step before.
        late: For each token that does not, and is not a first one, the step of the one before.
    """

    ids: list[str]
    tokens: list[list[int]]
    next_tokens: int
    late: list[int]


class Batch:
    """The requests that one engine's scheduler has sent to its model."""

    def __init__(self) -> None:
        self._sequences: dict[str, _Sequence] = {}
        self._step = 0

    def take(self, scheduled: SchedulerOutput) -> tuple[Work, Sampled]:
        """Compute a step: advance its sequences and give each complete one a token."""
        self._register(scheduled)
        self._step += 1
        sequences = self._sequences
        ids: list[str] = []
        tokens: list[list[int]] = []
        late: list[int] = []
        prefill = decodes = contexts = next_tokens = 0
        pairs = 0.0
        for request_id, count in scheduled.num_scheduled_tokens.items():
            sequence = sequences[request_id]
            if sequence.is_decoding:
                decodes += count
                contexts += sequence.computed + count
            else:
                prefill += count
                pairs += count * (sequence.computed + 0.5 * count)
            sequence.computed += count
            ids.append(request_id)
            if sequence.computed < sequence.size:
                tokens.append([])
                continue
            sequence.size += 1
            sequence.is_decoding = True
            if sequence.last_step == self._step - 1:
                next_tokens += 1
            elif sequence.last_step >= 0:
                late.append(sequence.last_step)
            sequence.last_step = self._step
            tokens.append([TOKEN])
        return Work(prefill, decodes, contexts, pairs), Sampled(ids, tokens, next_tokens, late)

    def forget(self, request_ids: Sequence[str] | set[str]) -> None:
        """These requests have ended."""
        for request_id in request_ids:
            self._sequences.pop(request_id, None)

    def _register(self, scheduled: SchedulerOutput) -> None:
        self.forget(scheduled.finished_req_ids)
        for new in scheduled.scheduled_new_reqs:
            self._sequences[new.req_id] = _Sequence(new.prompt_len, new.num_computed_tokens)
        cached = scheduled.scheduled_cached_reqs
        if cached.resumed_req_ids:
            for request_id, computed in zip(
                cached.req_ids, cached.num_computed_tokens, strict=True
            ):
                if request_id in cached.resumed_req_ids:
                    sequence = self._sequences[request_id]
                    sequence.computed = computed
                    sequence.is_decoding = False
