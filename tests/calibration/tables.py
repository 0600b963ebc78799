"""A folder of operator tables in AIConfigurator's layout, whose times are known."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import polars as pl

FLOOR_MS, TOKEN_MS, PAIR_MS = 0.1, 4e-4, 1e-7
SEQ_MS, KV_MS = 5e-4, 3e-7
EXPERT_FIXED_MS, EXPERT_TOKEN_MS = 0.3, 4e-4
MODULE = {"num_heads": 128, "gemm_type": "fp8_block", "kv_cache_dtype": "bfloat16"}
BYTES_PER_S = 10**18
"""So that reading weights takes no time, and all times are straight lines."""

REPLICA_FLOOR_MS = 0.01
LLAMA = {
    "num_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "kv_cache_dtype": "bfloat16",
    "window_size": 0,
}
EXPERTS = {
    "moe_dtype": "fp8_block",
    "hidden_size": 7168,
    "inter_size": 2048,
    "topk": 8,
    "num_experts": 256,
    "moe_tp_size": 1,
    "moe_ep_size": 8,
    "distribution": "power_law_1.01",
}


def write(root: Path, version: str = "0.24.0", slower: float = 1.0) -> Path:
    """Write what DeepSeek-V3, and Llama 70B on four devices, need; returns the package.

    Args:
        root: Where.
        version: Of the engine.
        slower: What all times are multiplied with.
    """
    data = root / "systems" / "data" / "h200_sxm"
    batches, lengths = [1, 2, 4, 8, 16, 32, 64, 128], [1, 64, 256, 512, 1024, 2048, 4096, 8192]
    grid = list(itertools.product(batches, lengths))
    widths = [256, 512, 2048, 4096, 8192, 16_384, 65_536]
    tables: dict[str, list[dict[str, Any]]] = {
        f"mla/vllm/{version}/mla_context_module_perf": [
            MODULE
            | {"batch_size": b, "isl": n}
            | {"latency": FLOOR_MS + TOKEN_MS * b * n + PAIR_MS * b * n * n / 2}
            for b, n in grid
        ],
        f"mla/vllm/{version}/mla_generation_module_perf": [
            MODULE
            | {"batch_size": b, "step": n}
            | {"latency": FLOOR_MS + SEQ_MS * b + KV_MS * b * n}
            for b, n in grid
        ],
        f"moe/vllm/{version}/moe_perf": [
            EXPERTS | {"num_tokens": n, "latency": EXPERT_FIXED_MS + EXPERT_TOKEN_MS * n}
            for n in (1, 8, 64, 512, 4096, 16_384)
        ],
        f"gemm/vllm/{version}/gemm_perf": [
            {"gemm_dtype": kind, "m": 8192, "n": n, "k": k, "latency": 1e-12 * 8192 * n * k}
            for kind in ("fp8_block", "bfloat16")
            for n in widths
            for k in widths
        ],
        f"attention/vllm/{version}/context_attention_perf": [
            LLAMA
            | {"batch_size": b, "isl": n}
            | {"latency": REPLICA_FLOOR_MS + PAIR_MS * b * n * n / 2}
            for b, n in grid
        ],
        f"attention/vllm/{version}/generation_attention_perf": [
            LLAMA | {"batch_size": b, "step": n - 1} | {"latency": REPLICA_FLOOR_MS + KV_MS * b * n}
            for b, n in grid
        ],
        f"comm/vllm/{version}/custom_allreduce_perf": [
            {"backend": "vllm_graph", "num_gpus": 4, "message_size": size, "latency": 1e-9 * size}
            for size in (1024, 2**28)
        ],
        "comm/nccl/2.26.2/nccl_perf": [
            {"nccl_dtype": "half", "num_gpus": 8, "op_name": name, "message_size": size}
            | {"latency": 1e-9 * size}
            for name in ("all_gather", "reduce_scatter")
            for size in (1024, 2**28)
        ],
    }
    for name, rows in tables.items():
        path = data / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(rows).with_columns(pl.col("latency") * slower).write_parquet(path)
    (root / "systems" / "h200_sxm.yaml").write_text(f"gpu:\n  mem_bw: {BYTES_PER_S}\n")
    return root
