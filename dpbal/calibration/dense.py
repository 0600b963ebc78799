"""The seconds of a step of a dense model, put together from the times of its operators."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from dpbal.calibration.batches import Decode, Prefill
from dpbal.calibration.operators import Operators
from dpbal.calibration.tables import BF16_BYTES, Curve, Tables
from dpbal.errors import ConfigError

HEAD_WIDTH = 128
DTYPE = "bfloat16"


@dataclass(frozen=True)
class Shape:
    """Sizes of a dense model with grouped-query attention and heads of 128."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    width: int  # of the feed-forward layer
    vocabulary: int


SHAPES = {
    "llama31_8b": Shape(32, 4096, 32, 8, 14_336, 128_256),
    "llama31_70b": Shape(80, 8192, 64, 8, 28_672, 128_256),
}


class Dense(Operators):
    """A replica in bf16, split over the devices of a rank; it shares nothing with other ranks.

    Args:
        tables: Of the system.
        shape: Of the model.
        devices: Over which a rank splits it.

    Raises:
        ConfigError: If they do not divide its heads.
    """

    def __init__(self, tables: Tables, shape: Shape, devices: int) -> None:
        if shape.kv_heads % devices:
            raise ConfigError(f"{devices} devices cannot share {shape.kv_heads} KV heads evenly")
        self._shape = shape
        self._devices = devices
        attention: dict[str, str | int] = {
            "num_heads": shape.heads // devices,
            "num_key_value_heads": shape.kv_heads // devices,
            "head_dim": HEAD_WIDTH,
            "kv_cache_dtype": DTYPE,
            "window_size": 0,
        }
        decode = tables.rows("generation_attention_perf", ("batch_size", "step"), **attention)
        super().__init__(
            tables,
            ranks=1,
            prefill=tables.rows("context_attention_perf", ("batch_size", "isl"), **attention),
            decode=decode.with_columns(pl.col("step") + 1),  # the new token is not counted there
        )
        queries = (shape.heads + 2 * shape.kv_heads) * HEAD_WIDTH
        self._products = [
            tables.product(DTYPE, n, k)
            for n, k in (
                (queries // devices, shape.hidden),
                (shape.hidden, shape.heads * HEAD_WIDTH // devices),
                (2 * shape.width // devices, shape.hidden),
                (shape.hidden, shape.width // devices),
            )
        ]
        self._logits = tables.product(DTYPE, shape.vocabulary // devices, shape.hidden)
        self._reduce: Curve | None = None
        if devices > 1:
            self._reduce = tables.curve(
                "custom_allreduce_perf", "message_size", num_gpus=devices, backend="vllm_graph"
            )

    def local_s(self, prefill: Prefill | None, decode: Decode | None) -> float:
        """Seconds of a step."""
        shape = self._shape
        tokens = (prefill.tokens if prefill else 0) + (decode.sequences if decode else 0)
        layer_s = sum(product(tokens) for product in self._products)
        layer_s += 2 * self.tables.elementwise_s(4 * shape.hidden * BF16_BYTES * tokens)
        width = 3 * shape.width // self._devices
        layer_s += self.tables.elementwise_s(width * BF16_BYTES * tokens)
        layer_s += self.attention_s(prefill, decode)
        if self._reduce:
            layer_s += 2 * self._reduce(tokens * shape.hidden)
        outputs = (prefill.prompts if prefill else 0) + (decode.sequences if decode else 0)
        return shape.layers * layer_s + self._logits(outputs)

    def common_s(self, tokens: int) -> float:
        """Nothing."""
        return 0.0
