"""Requests that no client should send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"

NOT_A: dict[str, list[Any]] = {
    "string": [5, {"a": 1}, True],
    "number": ["many", [1], {"a": 1}],
    "list": [5, "user", {"a": 1}],
}
"""What is not one, by what it is not."""

FIELDS: dict[str, list[Any]] = {
    "max_tokens": [-1, -(2**40), 10**9, *NOT_A["number"]],
    "n": [0, -3, 10**6, *NOT_A["number"]],
    "temperature": [-1, *NOT_A["number"]],
    "top_p": [0, -0.5, 1.5, *NOT_A["number"]],
    "top_k": [-7, *NOT_A["number"]],
    "min_p": [-1, 2],
    "presence_penalty": [-3, 3, "much"],
    "frequency_penalty": [-3, 3, "much"],
    "repetition_penalty": [0, -1],
    "logprobs": [-2, 10**6, "all"],
    "prompt_logprobs": [-2, "all"],
    "stop": [5, {"a": 1}, [1, 2]],
    "stop_token_ids": ["a", {"a": 1}],
    "logit_bias": [5, "a", {"999999999": 1}, {"a": "b"}],
    "stream": ["perhaps", {"a": 1}],
    "stream_options": [{"include_usage": True}, 5],
    "seed": ["a", 2**80],
    "min_tokens": [-1, 10**9],
    "echo": ["perhaps"],
    "response_format": [5, {"type": "poem"}],
    "priority": [{"a": 1}],
    "truncate_prompt_tokens": [-5, 10**9, "a"],
    "model": ["another", 5],
}
"""Values of a completion's fields that mean nothing."""

PROMPTS: list[Any] = ["", [], [[]], 5, {"a": 1}, [-1], [10**9], ["a", 5], "banana " * 20_000, None]

MESSAGES: list[Any] = [
    *([], 5, "hi", {"role": "user"}, [5], [{"role": "user", "content": 5}]),
    *([{"content": "hi"}], [{"role": "user", "content": [{"type": "image_url"}]}]),
    *([{"role": "user", "content": [{"type": "poem", "text": "a"}]}],),
    [{"role": "user", "content": "banana " * 20_000}],
]

RANKS = ["2", "-1", "99999999999999999999"]
"""Of a group of two, as a header."""

IGNORED: list[dict[str, str]] = [
    *({"X-data-parallel-rank": rank} for rank in ("one", "1.5", "0x1", "")),
    *({"X-Session-ID": session} for session in ("", "\xff", "a" * 50_000, "../../etc")),
    {"x-dpbal-dispatch": "7 7 7 7"},
    {"traceparent": "nonsense"},
]
"""Headers that vLLM takes for none, or that may be anything."""


def posts(name: str) -> Iterator[tuple[str, dict[str, str], bytes]]:
    """Path, headers and body of requests with a mistake each.

    Args:
        name: The served model's.
    """
    sound: dict[str, Any] = {"model": name, "prompt": "hi", "max_tokens": 2}
    for field, values in FIELDS.items():
        for value in values:
            yield COMPLETIONS, {}, json.dumps({**sound, field: value}).encode()
    for prompt in PROMPTS:
        yield COMPLETIONS, {}, json.dumps({**sound, "prompt": prompt}).encode()
    for messages in MESSAGES:
        yield CHAT, {}, json.dumps({"model": name, "messages": messages}).encode()
    for rank in RANKS:
        yield COMPLETIONS, {"X-data-parallel-rank": rank}, json.dumps(sound).encode()
    for session in ("a" * 100_000, "\x01", ""):
        yield COMPLETIONS, {}, json.dumps({**sound, "session_id": [session]}).encode()
    whole = json.dumps(sound).encode()
    for body in (b"", b"{", whole[:-5], b"\xff\xfe" + whole, b"null", b"[]", b'"hi"', b"5"):
        yield COMPLETIONS, {}, body
    yield COMPLETIONS, {"Content-Type": "text/plain"}, whole
    for path in ("/v1/completion", "/v1/", "/v1/completions/7", "/dpbal", "/v1/responses/none"):
        yield path, {}, whole


def raw(host: str, name: str) -> Iterator[bytes]:
    """What is not HTTP, or ends before it should, up to the point where the client hangs up."""
    body = json.dumps({"model": name, "prompt": "hi", "max_tokens": 2}).encode()
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    length = f"Content-Length: {len(body)}\r\n\r\n"
    yield b"\r\n\r\n"
    yield b"\x00\x01\x02\x03\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"  # TLS
    yield b"GET\r\n\r\n"
    yield b"GET / HTTP/9.9\r\n\r\n"
    yield f"DELETE {COMPLETIONS} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    yield f"GET {COMPLETIONS} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    yield f"POST /dpbal/health HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode()
    yield (head + "X-Much: " + "a" * 5_000_000 + "\r\n").encode() + length.encode() + body
    yield (head + "X-Many: a\r\n" * 5_000).encode() + length.encode() + body
    yield (head + "Content-Length: many\r\n\r\n").encode() + body
    yield (head + "Content-Length: -5\r\n\r\n").encode() + body
    yield (head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n").encode() + body
    yield (head + length).encode() + body[:-7]  # the rest never comes
    yield head.encode()  # nor does the end of the head
