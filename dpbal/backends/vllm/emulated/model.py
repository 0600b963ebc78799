"""A model directory without weights: all that vLLM's engines need to know of an emulated model.

``python -m dpbal.backends.vllm.emulated.model FOLDER --tokenizer`` makes one that takes text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpbal.errors import ConfigError

PROGRAM = "python -m dpbal.backends.vllm.emulated.model"

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


def write(folder: Path, is_moe: bool, max_model_len: int, has_tokenizer: bool = False) -> Path:
    """Write the model into a folder, and return it.

    Args:
        folder: Where; it must not be there yet.
        is_moe: A mixture of experts, or a dense model.
        max_model_len: Most tokens of a request.
        has_tokenizer: Whether it takes text, in tokens of its own, and not only token ids.

    Raises:
        OSError: If the folder cannot be made.
    """
    folder.mkdir()
    config = {**COMMON, **(MOE if is_moe else DENSE), "max_position_embeddings": max_model_len}
    if has_tokenizer:
        from dpbal.backends.vllm.emulated import tokenizer

        config["vocab_size"] = tokenizer.write(folder, max_model_len)
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


def main(argv: Sequence[str] | None = None) -> None:
    """Write a model without weights, for a server that is to be tried.

    Args:
        argv: What was typed; None takes it from the command line.
    """
    from dpbal.command import Parser, failing_in_one_line

    parser = Parser(PROGRAM, description="Writes a tiny model without weights.")
    parser.add_argument("folder", type=Path, help="where to; it must not be there yet")
    parser.add_argument(
        "--moe", action="store_true", help="a mixture of experts, whose ranks step together"
    )
    parser.add_argument(
        "--tokenizer", action="store_true", help="takes text and chats, not only token ids"
    )
    parser.add_argument(
        "--max-model-len", type=int, default=4096, help="most tokens of a request (4096)"
    )
    args = parser.parse_args(argv)
    with failing_in_one_line(PROGRAM):
        if args.max_model_len < 1:
            raise ConfigError(f"--max-model-len must be at least 1, got {args.max_model_len}")
        if args.folder.exists():
            raise ConfigError(f"{args.folder} is there already; remove it or name another")
        print(write(args.folder, args.moe, args.max_model_len, args.tokenizer))


if __name__ == "__main__":
    main()
