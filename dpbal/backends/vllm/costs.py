"""What dpbal adds to vLLM's own time: a scheduler's step and a client's choice, side by side."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter_ns, sleep
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from vllm import AsyncEngineArgs, SamplingParams
from vllm.config import VllmConfig
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.core_client import DPLBAsyncMPClient
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from dpbal.backends.vllm.emulated import model
from dpbal.backends.vllm.front_end.client import balanced_client
from dpbal.backends.vllm.front_end.front_end import FrontEnd
from dpbal.backends.vllm.rank.pacing import Pacing
from dpbal.backends.vllm.rank.scheduler import ReportingScheduler
from dpbal.composition import compose
from dpbal.core import LoadTable
from dpbal.parts import build_dispatcher
from dpbal.step_time import StepTime
from dpbal.transports import Shm
from dpbal.transports.base import Publisher

BLOCK_SIZE = 16
PROMPT_TOKENS = 64

Timed = Callable[[], int]
"""Does something once, and returns the nanoseconds it took."""


@contextmanager
def steps(running: int, max_steps: int) -> Iterator[dict[str, Timed]]:
    """A decode step of ``running`` requests by a scheduler, untouched and reporting; and a report.

    The model is not there: its output is made outside the measured time.
    """
    transport = Shm()
    exchange = transport.create(1, 1)
    publisher = transport.publisher(exchange.address, 0)
    try:
        config = config_of(running, PROMPT_TOKENS + max_steps + 2)
        kinds: dict[str, type[Scheduler]] = {
            "vLLM": Scheduler,
            "vLLM and dpbal": reporting(publisher),
        }
        timed = {name: stepper(kind, config, running) for name, kind in kinds.items()}
        yield {name: step for name, (step, _) in timed.items()} | {
            "report": _reporter(timed["vLLM and dpbal"][1])
        }
    finally:
        publisher.close()
        exchange.close()


def reporting(
    publisher: Publisher, pacing: Pacing | None = None, step_time: StepTime | None = None
) -> type[Scheduler]:
    """A scheduler class that reports there, and keeps to a budget if there is one."""

    class Reporting(ReportingScheduler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            Scheduler.__init__(self, *args, **kwargs)
            self._start_counting()
            self._start_pacing(pacing, step_time or StepTime(), 1.0)
            self._start_reporting(publisher, None)

    return Reporting


def config_of(running: int, max_model_len: int) -> VllmConfig:
    """A server's config for so many requests at a time."""
    with tempfile.TemporaryDirectory(prefix="dpbal-") as folder:
        config: VllmConfig = AsyncEngineArgs(
            **model.arguments(Path(folder, "model"), False, max_model_len),
            max_num_seqs=running,
            max_num_batched_tokens=running * PROMPT_TOKENS,
            block_size=BLOCK_SIZE,
            enable_prefix_caching=False,
        ).create_engine_config()
    return config


def _reporter(scheduler: Scheduler) -> Timed:
    def report() -> int:
        before_ns = perf_counter_ns()
        scheduler._publish()  # type: ignore[attr-defined]
        return perf_counter_ns() - before_ns

    return report


def stepper(kind: type[Scheduler], config: VllmConfig, running: int) -> tuple[Timed, Scheduler]:
    """A step of a scheduler with so many requests, and the scheduler."""
    blocks = running * (config.model_config.max_model_len // BLOCK_SIZE + 1) + 1
    spec = FullAttentionSpec(
        block_size=BLOCK_SIZE, num_kv_heads=1, head_size=16, dtype=torch.bfloat16
    )
    config.cache_config.num_gpu_blocks = blocks
    scheduler = kind(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(
            num_blocks=blocks,
            kv_cache_tensors=[],
            kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
        ),
        structured_output_manager=StructuredOutputManager(config),
        block_size=BLOCK_SIZE,
        include_finished_set=True,
    )
    params = SamplingParams(max_tokens=config.model_config.max_model_len, ignore_eos=True)
    ask(scheduler, running, params)

    def step() -> int:
        before_ns = perf_counter_ns()
        scheduled = scheduler.schedule()
        took_ns = perf_counter_ns() - before_ns
        ids = list(scheduled.num_scheduled_tokens)
        output = ModelRunnerOutput(
            req_ids=ids,
            req_id_to_index={request_id: k for k, request_id in enumerate(ids)},
            sampled_token_ids=[[7] for _ in ids],
        )
        before_ns = perf_counter_ns()
        scheduler.update_from_output(scheduled, output)
        return took_ns + perf_counter_ns() - before_ns

    return step, scheduler


def ask(scheduler: Scheduler, count: int, params: SamplingParams) -> None:
    """Give a scheduler so many more requests."""
    for _ in range(count):
        request_id = str(len(scheduler.requests))
        scheduler.add_request(Request(request_id, [1] * PROMPT_TOKENS, params, None))


@contextmanager
def choices(ranks: int, balancer: str) -> Iterator[dict[str, Timed]]:
    """A client's choice of an engine, vLLM's and dpbal's, each with new reports of all ranks."""
    transport = Shm()
    exchange = transport.create(ranks, 1)
    publishers = [transport.publisher(exchange.address, rank) for rank in range(ranks)]
    table = LoadTable(ranks)
    subscriber = transport.subscriber(exchange.address, table)
    dispatcher = build_dispatcher(compose(f"balancer={balancer}"), table, 0)
    front_end = FrontEnd([dispatcher], subscriber)
    random = np.random.default_rng(0)
    try:
        stock = _client(DPLBAsyncMPClient, ranks)
        own = _client(balanced_client(lambda *_: front_end), ranks)
        own.front_end, own.block_tokens = front_end, BLOCK_SIZE
        number = 0

        def chooser(client: Any, end: Callable[[str], None]) -> Timed:
            def choose() -> int:
                nonlocal number
                number += 1
                loads = random.integers(0, 50, (ranks, 2)).tolist()
                client.lb_engines = [[w, r, 0.4] for w, r in loads]
                for publisher, (waiting, running) in zip(publishers, loads, strict=True):
                    publisher.report["holding_tokens"] = 1000 * (waiting + running)
                    publisher.report["running"] = running
                    publisher.received_epoch[0] = dispatcher.ledger.epoch
                    publisher.received_sequence[0] = max(0, dispatcher.ledger.sequence - 4)
                    publisher.publish()
                request = _request(str(number))
                before_ns = perf_counter_ns()
                client.get_core_engine_for_request(request)
                took_ns = perf_counter_ns() - before_ns
                end(str(max(0, number - 256)))
                return took_ns

            return choose

        yield {"vLLM": chooser(stock, lambda _: None), "dpbal": chooser(own, front_end.finish)}
    finally:
        subscriber.close()
        for publisher in publishers:
            publisher.close()
        exchange.close()


def _client(kind: type[DPLBAsyncMPClient], ranks: int) -> Any:
    """A client without engines: all that a choice reads and writes."""
    client: Any = kind.__new__(kind)
    client.client_count = 1
    client.client_index = 0
    client.core_engines = [rank.to_bytes(2, "little") for rank in range(ranks)]
    client.eng_start_index = 0
    client.resources = SimpleNamespace(engine_dead=False)
    client.reqs_in_flight = {}
    client.engine_inflight = Counter()
    client.lb_engines = []
    return client


def _request(request_id: str) -> EngineCoreRequest:
    return EngineCoreRequest(
        request_id=request_id,
        prompt_token_ids=[1] * PROMPT_TOKENS,
        mm_features=None,
        sampling_params=SamplingParams(max_tokens=16),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )


def take_turns(timed: dict[str, Timed], rounds: int, pause_s: float) -> dict[str, list[int]]:
    """Nanoseconds of ``rounds`` calls of each, one after the other, in turn.

    With a pause before each call it finds the processor's caches as a server does, which does
    something else in between.
    """
    took: dict[str, list[int]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, call in timed.items():
            if pause_s:
                sleep(pause_s)
            took[name].append(call())
    return took
