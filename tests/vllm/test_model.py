"""Model folders that are made on the spot, and their tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpbal.backends.vllm.emulated import model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.write(tmp_path_factory.mktemp("text") / "model", False, 128, has_tokenizer=True)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@settings(deadline=None)
@given(st.text())
def test_every_text_is_given_back(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_words_are_shorter_in_tokens_than_in_bytes(tokenizer: Any) -> None:
    text = "the load reports of a rank say how many tokens it holds"
    assert len(tokenizer.encode(text)) < 0.8 * len(text)


def test_the_model_has_an_embedding_for_every_token(folder: Path, tokenizer: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["vocab_size"] == len(tokenizer)
    assert tokenizer.eos_token_id == config["eos_token_id"]
    assert tokenizer.bos_token_id == config["bos_token_id"]
    assert tokenizer.model_max_length == config["max_position_embeddings"] == 128


def test_chats_take_strings_and_lists(tokenizer: Any) -> None:
    def rendered(content: Any) -> str:
        messages = [{"role": "user", "content": content}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert isinstance(text, str)
        return text

    parts = [{"type": "text", "text": "how "}, {"type": "text", "text": "long"}]
    assert rendered("how long") == rendered(parts)
    assert rendered("how long").endswith("<|im_start|>assistant\n")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "model"
    model.main([str(made), "--moe", "--max-model-len", "99"])
    assert capsys.readouterr().out == f"{made}\n"
    config = json.loads((made / "config.json").read_text())
    assert (config["model_type"], config["max_position_embeddings"]) == ("qwen3_moe", 99)
    assert [path.name for path in made.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["{made}"], "is there already"),
        (["{made}/none/model"], "No such file"),
        (["new", "--max-model-len", "0"], "must be at least 1"),
        (["new", "--max-model-len", "long"], "invalid int value"),
        (["new", "--dense"], "unrecognized arguments"),
        ([], "required: folder"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], typed: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        model.main([word.format(made=folder) for word in typed])
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert errors.count("\n") == 1
