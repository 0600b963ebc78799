"""A rank's scheduler without an engine: requests, steps of a made-up model, and what it reports."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from dpbal.step_time import StepTime

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.outputs import ModelRunnerOutput

BLOCK = 16
STEP_S = 0.02
"""How long the engine says that a wave's first step took; the next takes twice as long, ..."""

STOP = 5
"""A token that ends a request."""

VOCABULARY = 60
"""Tokens that the model may say, so that some of them are ``STOP``."""

COSTS = StepTime(
    fixed_s=0.001,
    prefill_s_per_token=1e-5,
    decode_s_per_seq=1e-4,
    kv_s_per_token=1e-7,
    attention_s_per_pair=1e-9,
)
SPECULATED = 3


def vllm_config(
    model: Path, *, is_async: bool = False, policy: str = "fcfs", speculates: bool = False
) -> VllmConfig:
    """A server's config for a model directory, as small as its tests need it."""
    from vllm.config import (
        CacheConfig,
        DeviceConfig,
        ModelConfig,
        ParallelConfig,
        SchedulerConfig,
        SpeculativeConfig,
        VllmConfig,
    )

    model_config = ModelConfig(model=str(model), skip_tokenizer_init=True, dtype="bfloat16")
    parallel = ParallelConfig()
    speculative = None
    if speculates:
        speculative = SpeculativeConfig(
            method="ngram",
            num_speculative_tokens=SPECULATED,
            prompt_lookup_max=2,
            target_model_config=model_config,
            target_parallel_config=parallel,
        )
    config = VllmConfig(
        model_config=model_config,
        scheduler_config=SchedulerConfig(
            max_num_batched_tokens=64,
            max_num_seqs=6,
            max_model_len=model_config.max_model_len,
            is_encoder_decoder=False,
            policy=policy,  # type: ignore[arg-type]
            watermark=0.0,
        ),
        cache_config=CacheConfig(block_size=BLOCK, enable_prefix_caching=True),
        parallel_config=parallel,
        device_config=DeviceConfig("cpu"),
        speculative_config=speculative,
    )
    config.scheduler_config.async_scheduling = is_async  # which vLLM never does on a CPU
    return config


@dataclass
class Step:
    """A step under way.

    Attributes:
        scheduled: What the scheduler sent.
        samples: Requests whose prompts it completes.
    """

    scheduled: SchedulerOutput
    samples: frozenset[str]


class Engine:
    """An engine's loop around a reporting scheduler; with a scheduler that is a step ahead, two
    steps are under way at a time, as in vLLM's.

    Args:
        config: Of the server.
        kv_blocks: Of its KV cache, without vLLM's null block.
        seed: Of what the model says.
        dispatchers: Columns of the acknowledgement table.

    Attributes:
        wave: Times that the group has had work, before this one.
        turns: Of the loop, in this wave.
        given: Tokens that each turn scheduled.
        tells_steps: Whether its executor says how long each step took.
        outputs: What the requests were given.
        requests: All that came.
    """

    def __init__(
        self, config: VllmConfig, kv_blocks: int = 64, seed: int = 0, dispatchers: int = 1
    ) -> None:
        import torch
        from vllm.utils.hashing import get_hash_fn_by_name
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.kv_cache_interface import (
            FullAttentionSpec,
            KVCacheConfig,
            KVCacheGroupSpec,
        )
        from vllm.v1.structured_output import StructuredOutputManager

        from dpbal.backends.vllm.rank.scheduler import ReportingAsyncScheduler, ReportingScheduler

        spec = FullAttentionSpec(
            block_size=BLOCK, num_kv_heads=1, head_size=16, dtype=torch.bfloat16
        )
        config.cache_config.num_gpu_blocks = kv_blocks + 1
        is_async = bool(config.scheduler_config.async_scheduling)
        kind = ReportingAsyncScheduler if is_async else ReportingScheduler
        self.scheduler = kind(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(
                num_blocks=kv_blocks + 1,
                kv_cache_tensors=[],
                kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
            ),
            structured_output_manager=StructuredOutputManager(config),
            block_size=BLOCK,
            include_finished_set=True,
            log_stats=False,
        )
        hash_function = get_hash_fn_by_name("sha256")
        init_none_hash(hash_function)
        self._hasher = get_request_block_hasher(BLOCK, hash_function)
        self._random = Random(seed)
        self._under_way: deque[Step] = deque()
        self._depth = 2 if is_async else 1
        self._speculates = config.speculative_config is not None
        self.wave = self.turns = 0
        self.given: list[int] = []
        self.tells_steps = True
        self.outputs: list[Any] = []
        self.requests: list[Any] = []

    def add(
        self,
        request_id: str,
        tokens: list[int],
        max_tokens: int,
        *,
        priority: int = 0,
        headers: Mapping[str, str] | None = None,
        arrival_s: float | None = None,
        resumable: bool = False,
        stops: bool = True,
        cache_salt: str | None = None,
    ) -> None:
        """Take a request, as the engine does between two steps; ``STOP`` ends one that stops."""
        request = self.request(
            request_id,
            tokens,
            max_tokens,
            priority=priority,
            headers=headers,
            arrival_s=arrival_s,
            resumable=resumable,
            stops=stops,
            cache_salt=cache_salt,
        )
        self.requests.append(request)
        self.scheduler.add_request(request)

    def request(
        self,
        request_id: str,
        tokens: list[int],
        max_tokens: int,
        *,
        priority: int = 0,
        headers: Mapping[str, str] | None = None,
        arrival_s: float | None = None,
        resumable: bool = False,
        stops: bool = True,
        cache_salt: str | None = None,
    ) -> Any:
        """A request that nobody has taken; see ``add``."""
        from vllm import SamplingParams
        from vllm.v1.request import Request

        return Request(
            request_id=request_id,
            prompt_token_ids=list(tokens),
            sampling_params=SamplingParams(
                max_tokens=max_tokens, stop_token_ids=[STOP] if stops else []
            ),
            pooling_params=None,
            priority=priority,
            trace_headers=headers,
            arrival_time=arrival_s,
            block_hasher=self._hasher,
            resumable=resumable,
            cache_salt=cache_salt,
        )

    def abort(self, *request_ids: str) -> None:
        """End requests from outside."""
        from vllm.v1.request import RequestStatus

        self.scheduler.finish_requests(request_ids, RequestStatus.FINISHED_ABORTED)

    def step(self, *aborted: str) -> bool:
        """Turn the loop once, with ``aborted`` requests ended while the model computes.

        Returns:
            Whether a step has ended, and was reported.
        """
        self.scheduler.pace(self.wave, self.turns, self._took_s if self.tells_steps else None)
        self.turns += 1
        self.given.append(0)
        if self.scheduler.has_requests():
            scheduled = self._schedule()
            has_more = bool(scheduled.num_scheduled_tokens) or self.scheduler.has_requests()
            if len(self._under_way) < self._depth and has_more:
                self.abort(*aborted)
                return False
        self.abort(*aborted)
        if not self._under_way:
            return False
        self._update()
        return True

    def start_wave(self) -> None:
        """The group has been idle, and has work again."""
        self.wave += 1
        self.turns = 0

    def drain(self, most: int = 2000) -> None:
        """Turn the loop until nothing is left to do."""
        for _ in range(most):
            if not self.scheduler.has_requests() and not self._under_way:
                return
            self.step()
        raise AssertionError(f"requests are left after {most} steps")

    def close(self) -> None:
        """Serve no more."""
        self.scheduler.shutdown()

    def _took_s(self, back: int) -> float:
        return STEP_S * (1 + self.turns - back)

    def _schedule(self) -> SchedulerOutput:
        scheduler = self.scheduler
        scheduled = scheduler.schedule()
        requests = scheduler.requests
        samples = {
            key for key in scheduled.num_scheduled_tokens if not requests[key].is_prefill_chunk
        }
        self._under_way.append(Step(scheduled, frozenset(samples)))
        self.given[-1] = scheduled.total_num_scheduled_tokens
        return scheduled

    def _update(self) -> None:
        step = self._under_way.popleft()
        scheduled = step.scheduled
        given = self.scheduler.update_from_output(scheduled, self._compute(step))
        for outputs in given.values():
            self.outputs.extend(outputs.outputs)
        if self._speculates and self._depth == 1:
            from vllm.v1.outputs import DraftTokenIds

            ids = list(scheduled.num_scheduled_tokens)
            drafts = [self._say(self._random.randint(0, SPECULATED)) for _ in ids]
            self.scheduler.update_draft_token_ids(DraftTokenIds(ids, drafts))

    def _compute(self, step: Step) -> ModelRunnerOutput:
        from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, ModelRunnerOutput

        ids = list(step.scheduled.num_scheduled_tokens)
        if not ids:
            return EMPTY_MODEL_RUNNER_OUTPUT
        drafted = step.scheduled.scheduled_spec_decode_tokens
        tokens: list[list[int]] = []
        for key in ids:
            most = len(drafted.get(key, ()))
            tokens.append(
                self._say(1 + self._random.randint(0, most)) if key in step.samples else []
            )
        return ModelRunnerOutput(
            req_ids=ids,
            req_id_to_index={key: i for i, key in enumerate(ids)},
            sampled_token_ids=tokens,
        )

    def _say(self, count: int) -> list[int]:
        return [self._random.randrange(VOCABULARY) for _ in range(count)]


MakeEngine = Callable[..., Engine]
"""``vllm_config`` and ``Engine`` in one."""
