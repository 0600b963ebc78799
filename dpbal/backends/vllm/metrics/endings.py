"""How requests ended, from what an engine says of those that have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vllm.v1.engine import FinishReason

from dpbal.backends.vllm.metrics.counts import Ending

if TYPE_CHECKING:
    from vllm.v1.engine import EngineCoreOutputs

ENDINGS = {
    FinishReason.STOP: Ending.finished,
    FinishReason.LENGTH: Ending.finished,
    FinishReason.REPETITION: Ending.finished,
    FinishReason.ABORT: Ending.aborted,
    FinishReason.ERROR: Ending.error,
}


def endings(outputs: EngineCoreOutputs) -> Iterator[tuple[str, Ending]]:
    """Requests that have ended, and how; one that has no last output was aborted from outside."""
    finished = outputs.finished_requests
    if not finished:
        return
    reasons = {
        output.request_id: output.finish_reason
        for output in outputs.outputs
        if output.finish_reason is not None
    }
    for request_id in finished:
        reason = reasons.get(request_id)
        yield request_id, Ending.aborted if reason is None else ENDINGS[reason]
