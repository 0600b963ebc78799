"""A model directory without weights: all that vLLM's engines need to know of an emulated model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VOCABULARY = 32_000
"""Token ids of emulated prompts are below it."""

DENSE = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
}

MOE = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "decoder_sparse_step": 1,
    "norm_topk_prob": True,
    "mlp_only_layers": [],
}
"""vLLM steps the ranks of a mixture of experts in lockstep, and those of a dense model alone."""

COMMON = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}


def write(folder: Path, is_moe: bool, max_model_len: int) -> Path:
    """Write the model into a folder, and return it."""
    folder.mkdir()
    config = {**COMMON, **(MOE if is_moe else DENSE), "max_position_embeddings": max_model_len}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def arguments(folder: Path, is_moe: bool, max_model_len: int) -> dict[str, Any]:
    """Write the model into a folder, and return the engine arguments that serve it."""
    return {
        "model": str(write(folder, is_moe, max_model_len)),
        "skip_tokenizer_init": True,
        "load_format": "dummy",
        "enforce_eager": True,
        "dtype": "bfloat16",
        "max_model_len": max_model_len,
    }
