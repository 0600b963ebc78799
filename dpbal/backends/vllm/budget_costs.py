"""What a budget adds to a scheduler's step: vectors of all ranks, the rule, and keeping to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from time import perf_counter_ns
from typing import Any

from vllm import SamplingParams

from dpbal.backends.vllm.costs import PROMPT_TOKENS, Timed, ask, config_of, reporting, stepper
from dpbal.backends.vllm.rank.pacing import Pacing
from dpbal.composition import compose
from dpbal.parts import build, build_step_time
from dpbal.transports import Shm
from dpbal.transports.base import Vectors

RANKS = 8
QUEUE = 64
"""Prompts that wait, and could be admitted, while a turn alone is measured."""

OTHERS = {
    "decode_s": 0.01,
    "decode_seqs": 64,
    "prefill_s": 0.2,
    "prefill_requests": 3,
    "wait_s": 1.0,
    "oldest_wait_s": 0.5,
}
"""What each of the other ranks has; a little more, the higher its number."""


@contextmanager
def turns(running: int, max_steps: int, budget: str) -> Iterator[dict[str, Timed]]:
    """What a budget costs a rank of eight that has ``running`` decodes.

    A turn is all that comes before a scheduler's step: the rank's vector, published; the vectors of
    all ranks, read; and the rule. It is measured alone, with prompts waiting, and together with the
    decode step that keeps to the limits. The others publish outside the measured time.
    """
    with ExitStack() as stack:
        length = PROMPT_TOKENS + max_steps + 2
        step, decoding = _paced(stack, running, running, length, budget)
        _, queueing = _paced(stack, running, running + QUEUE, length, budget)
        queueing.scheduler.schedule()
        ask(queueing.scheduler, QUEUE, SamplingParams(max_tokens=4))
        yield {
            f"vLLM, dpbal and {budget}": lambda: decoding.turn() + step(),
            budget: queueing.turn,
        }


class _Rank:
    """A rank's scheduler with the ends of all others."""

    def __init__(self, scheduler: Any, others: Sequence[Vectors]) -> None:
        self.scheduler = scheduler
        self._others = others
        self._step = 0

    def turn(self) -> int:
        for end in self._others:
            end.publish(0, self._step)
        before_ns = perf_counter_ns()
        self.scheduler.pace(0, self._step, None)
        took_ns = perf_counter_ns() - before_ns
        self._step += 1
        return took_ns


def _paced(
    stack: ExitStack, running: int, most: int, length: int, budget: str
) -> tuple[Timed, _Rank]:
    """A decode step of a rank, and the rank, which has slots for ``most`` requests."""
    transport = Shm()
    exchange = stack.enter_context(closing(transport.create(RANKS, 1)))
    publisher = stack.enter_context(closing(transport.publisher(exchange.address, 0)))
    ends = [
        stack.enter_context(closing(transport.vectors(exchange.address, rank)))
        for rank in range(RANKS)
    ]
    for rank, end in enumerate(ends):
        for field, value in OTHERS.items():
            end.own[field] = value * (1 + 0.1 * rank)
    config = compose(f"budget={budget}")
    step_time = build_step_time(config.profile)
    vllm_config = config_of(most, length)
    batched_tokens = vllm_config.scheduler_config.max_num_batched_tokens
    pacing = Pacing(
        build("budget", config.budget), step_time, RANKS, 0, batched_tokens, vectors=ends[0]
    )
    step, scheduler = stepper(reporting(publisher, pacing, step_time), vllm_config, running)
    return step, _Rank(scheduler, ends[1:])
