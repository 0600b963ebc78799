"""The seconds of a step of DeepSeek-V3, put together from the times of its operators."""

from __future__ import annotations

from dataclasses import dataclass

from dpbal.calibration.batches import Decode, Prefill
from dpbal.calibration.operators import Operators
from dpbal.calibration.tables import BF16_BYTES, Product, Tables

HIDDEN = 7168
HEADS = 128
MOE_LAYERS = 58
DENSE_LAYERS = 3
EXPERTS = 256
EXPERTS_A_TOKEN = 8
EXPERT_WIDTH = 2048
DENSE_WIDTH = 18432
VOCABULARY = 129_280
PROJECTIONS = ((2112, HIDDEN), (24_576, 1536), (HIDDEN, 16_384))
"""Widths n, k of attention's products that prefill and decode tokens of a step share."""

HIDDEN_SHARED_TOKENS = 256
"""Up to here vLLM runs the shared experts beside the routed ones
(``VLLM_SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD``), which take longer."""


@dataclass(frozen=True)
class Types:
    """Types of the numbers in a checkpoint, as the tables name them.

    Attributes:
        weights: Of dense layers and shared experts.
        experts: Of the routed experts.
        attention: Of attention's projections.
        cache: Of the KV cache.
    """

    weights: str
    experts: str
    attention: str
    cache: str


class DeepSeekV3(Operators):
    """DeepSeek-V3 with attention on each rank and experts over all of them.

    A rank's own part is attention, norms, router, shared experts, the first dense layers and the
    logits. The part that all share is the experts, and gathering and scattering their tokens.

    Args:
        tables: Of the system.
        ranks: Of the group; each holds ``1 / ranks`` of the experts.
        types: Of numbers.
        distribution: How tokens choose experts, as the MoE table names it.
        exchange_ranks: Ranks in the table of collectives; those of the group if None. Where the
            table has fewer, their time for as many bytes stands for it.
    """

    def __init__(
        self,
        tables: Tables,
        ranks: int,
        types: Types,
        distribution: str = "power_law_1.01",
        exchange_ranks: int | None = None,
    ) -> None:
        attention: dict[str, str | int] = {
            "num_heads": HEADS,
            "gemm_type": types.attention,
            "kv_cache_dtype": types.cache,
        }
        super().__init__(
            tables,
            ranks,
            prefill=tables.rows("mla_context_module_perf", ("batch_size", "isl"), **attention),
            decode=tables.rows("mla_generation_module_perf", ("batch_size", "step"), **attention),
        )
        self._projections = [tables.product(types.attention, n, k) for n, k in PROJECTIONS]
        self._shared = [
            tables.product(types.weights, 2 * EXPERT_WIDTH, HIDDEN),
            tables.product(types.weights, HIDDEN, EXPERT_WIDTH),
        ]
        self._dense = [
            tables.product(types.weights, 2 * DENSE_WIDTH, HIDDEN),
            tables.product(types.weights, HIDDEN, DENSE_WIDTH),
        ]
        self._router = tables.product("bfloat16", EXPERTS, HIDDEN)
        self._logits = tables.product("bfloat16", VOCABULARY, HIDDEN)
        self._experts = tables.curve(
            "moe_perf",
            "num_tokens",  # of the whole group
            moe_dtype=types.experts,
            hidden_size=HIDDEN,
            inter_size=EXPERT_WIDTH,
            topk=EXPERTS_A_TOKEN,
            num_experts=EXPERTS,
            moe_tp_size=1,
            moe_ep_size=ranks,
            distribution=distribution,
        )
        nccl = Tables(tables.folder, "nccl")
        self._exchange = [
            nccl.curve(
                "nccl_perf",
                "message_size",
                num_gpus=exchange_ranks or ranks,
                nccl_dtype="half",
                op_name=operation,
            )
            for operation in ("all_gather", "reduce_scatter")
        ]

    def local_s(self, prefill: Prefill | None, decode: Decode | None) -> float:
        """Seconds of a rank's own part of a step."""
        prefill_tokens = prefill.tokens if prefill else 0
        sequences = decode.sequences if decode else 0
        tokens = prefill_tokens + sequences
        attention_s = self.attention_s(prefill, decode)
        if prefill and decode:  # the projections of both are one product each
            attention_s += sum(
                product(tokens) - product(prefill_tokens) - product(sequences)
                for product in self._projections
            )
        norms_s = 2 * self.tables.elementwise_s(4 * HIDDEN * BF16_BYTES * tokens)
        moe_s = self._router(tokens)
        if tokens > HIDDEN_SHARED_TOKENS:
            moe_s += self._feed_forward_s(self._shared, EXPERT_WIDTH, tokens)
        dense_s = self._feed_forward_s(self._dense, DENSE_WIDTH, tokens)
        return (
            (MOE_LAYERS + DENSE_LAYERS) * (attention_s + norms_s)
            + MOE_LAYERS * moe_s
            + DENSE_LAYERS * dense_s
            + self._logits((prefill.prompts if prefill else 0) + sequences)
        )

    def common_s(self, tokens: int) -> float:
        """Seconds of the part of a step that all ranks share, for so many tokens of the group."""
        exchange_s = sum(curve(tokens * HIDDEN) for curve in self._exchange)
        return MOE_LAYERS * (self._experts(tokens) + exchange_s)

    def _feed_forward_s(self, products: list[Product], width: int, tokens: int) -> float:
        moved = 3 * width * BF16_BYTES * tokens  # two halves read, their product written
        return sum(product(tokens) for product in products) + self.tables.elementwise_s(moved)
