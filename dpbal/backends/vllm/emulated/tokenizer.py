"""A tokenizer made by code, so that a model without weights takes text and gives text."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from string import ascii_lowercase

SPECIAL = ("<|pad|>", "<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>")
"""They have the first ids, in this order."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- elif message['content'] -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""
"""Takes a content that is a string, and one that is a list of parts."""


def write(folder: Path, max_model_len: int) -> int:
    """Write a byte-level BPE tokenizer into a model's folder.

    Every text has tokens, and they give it back byte by byte: all 256 bytes are among them. The
    merges are pairs with a vowel and a space before a letter, so that words are shorter in tokens
    than in bytes.

    Args:
        folder: The model's, which exists.
        max_model_len: Most tokens of a request.

    Returns:
        How many tokens there are.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges()
    tokens = [*SPECIAL, *alphabet, *map("".join, merges)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_model_len,
        "clean_up_tokenization_spaces": False,
        "pad_token": SPECIAL[0],
        "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[2],
        "additional_special_tokens": list(SPECIAL[3:]),
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(tokens)


def _merges() -> list[tuple[str, str]]:
    vowels = "aeiou"
    pairs = [
        (a, b) for a, b in product(ascii_lowercase, repeat=2) if (a in vowels) != (b in vowels)
    ]
    space = "\u0120"  # a byte-level alphabet's name of it
    return pairs + [(space, letter) for letter in ascii_lowercase]
