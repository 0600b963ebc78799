"""Where all ranks of a lockstep group come to in each of its steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.v1.engine.core import DPEngineCoreProc

Agree = Callable[["DPEngineCoreProc", bool], bool]


def meeting(agree: Agree) -> Agree:
    """The end of a step, at which ranks also meet to say what they hold, if they do so.

    Here vLLM counts the steps of a wave, and at some of them waits for all ranks to agree on
    whether any has work left. So every rank comes here once in every step, also with a dummy batch.
    It may turn its loop without a step, when all that it had was aborted.
    """

    @wraps(agree)
    def meet_and_agree(self: Any, local_unfinished: bool) -> bool:
        step = self.step_counter
        has_unfinished = agree(self, local_unfinished)
        self.scheduler.meet(step)  # after vLLM has waited for ranks that begin the wave later
        if not has_unfinished:
            self.scheduler.rest()
        return has_unfinished

    return meet_and_agree
