from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpbal.errors import ConfigError, WorkloadError
from dpbal.workloads import WORKLOADS, Requests
from dpbal.workloads.mooncake import spread

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
PLAIN = "arrival_s,prompt_tokens,output_tokens\n"


def replay(name: str, path: Path, text: str | bytes, seed: int = 0, **params: Any) -> Requests:
    path = path / "my.trace"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return WORKLOADS.build(name, {"path": str(path), **params}).generate(seed)


def test_reads_azure(tmp_path: Path) -> None:
    text = AZURE + "2023-11-16 23:59:59.9000000,374,44\n2023-11-17 00:00:02.4000000,396,109\n"
    requests = replay("azure_conv", tmp_path, text)
    assert requests.arrival_s.tolist() == pytest.approx([0, 2.5])
    assert requests.prompt_tokens.tolist() == [374, 396]
    assert requests.output_tokens.tolist() == [44, 109]


def test_reads_azure_with_a_time_zone(tmp_path: Path) -> None:
    text = AZURE + "2024-05-10 00:00:00.5+00:00,374,44\n2024-05-10 00:00:01+00:00,396,109\n"
    assert replay("azure_code", tmp_path, text).arrival_s.tolist() == pytest.approx([0, 0.5])


def test_reads_a_csv_of_ones_own_in_any_order_of_columns(tmp_path: Path) -> None:
    text = (
        "\ufeffsession,output_tokens,arrival_s,prompt_tokens\r\n"
        "a,2,10.5,100\r\n,3,11,200\r\nb,4,11,300\r\na,5,12,400\r\n\r\n"
    )
    requests = replay("trace_csv", tmp_path, text)
    assert requests.arrival_s.tolist() == [0, 0.5, 0.5, 1.5]
    assert requests.prompt_tokens.tolist() == [100, 200, 300, 400]
    assert requests.output_tokens.tolist() == [2, 3, 4, 5]
    assert [row.session for row in requests] == [0, None, 1, 0]


def test_reads_jsonl_of_ones_own(tmp_path: Path) -> None:
    text = (
        '{"arrival_s": 0, "prompt_tokens": 40, "output_tokens": 1, "block_hashes": [-9, 8]}\n\n'
        '{"arrival_s": 1, "prompt_tokens": 33, "output_tokens": 2, "session": "x"}\n'
    )
    requests = replay("trace_jsonl", tmp_path, text, hash_block_tokens=16)
    assert requests.hash_block_tokens == 16
    assert [row.block_hashes.tolist() for row in requests if row.block_hashes is not None] == [
        [-9, 8],
        [],
    ]
    assert [row.session for row in requests] == [None, 0]


def test_sorts_by_time_and_keeps_the_order_of_equal_times(tmp_path: Path) -> None:
    rows = [(5, 10, [1]), (1, 20, [2]), (5, 30, [3]), (1, 40, [])]
    text = "".join(
        f'{{"arrival_s": {t}, "prompt_tokens": {p}, "output_tokens": 1, "block_hashes": {h}}}\n'
        for t, p, h in rows
    )
    requests = replay("trace_jsonl", tmp_path, text, hash_block_tokens=8)
    assert requests.arrival_s.tolist() == [0, 0, 4, 4]
    assert requests.prompt_tokens.tolist() == [20, 40, 10, 30]
    assert [row.block_hashes.tolist() for row in requests if row.block_hashes is not None] == [
        [2],
        [],
        [1],
        [3],
    ]


MOONCAKE = "".join(
    f'{{"timestamp": {1000 + i // 100 * 3000}, "input_length": {1200 + i}, "output_length": 4, '
    f'"hash_ids": [0, {2 * i + 1}, {2 * i + 2}]}}\n'
    for i in range(1000)
)


def test_mooncake_spreads_arrivals_inside_their_bins(tmp_path: Path) -> None:
    raw = replay("mooncake_conversation", tmp_path, MOONCAKE, spread_bins=False)
    jittered = spread(raw.arrival_s, seed=4)
    assert len(np.unique(raw.arrival_s)) == 10
    assert len(np.unique(jittered)) == 1000
    shift_s = jittered - raw.arrival_s
    assert (shift_s >= 0).all()
    assert (shift_s < 3).all()
    assert (np.diff(jittered) >= 0).all()
    quarters = np.bincount((shift_s / 0.75).astype(int))
    assert quarters.tolist() == pytest.approx([250] * 4, rel=0.25)


def test_spreading_a_short_bin_stops_at_the_next(tmp_path: Path) -> None:
    times_s = np.array([0.0] * 500 + [2.5] * 500)
    jittered = spread(times_s, seed=1)
    assert jittered[:500].max() < 2.5 <= jittered[500:].min()


def test_mooncake_keeps_the_hashes_of_whole_blocks(tmp_path: Path) -> None:
    requests = replay("mooncake_conversation", tmp_path, MOONCAKE, seed=8)
    assert requests.hash_block_tokens == 512
    for i, row in enumerate(requests):
        assert row.prompt_tokens == 1200 + i
        assert row.block_hashes is not None
        known = [0, 2 * i + 1, 2 * i + 2]
        assert row.block_hashes.tolist() == known[: row.prompt_tokens // 512]


def test_windows_are_disjoint_and_cover_the_trace(tmp_path: Path) -> None:
    text = PLAIN + "".join(f"{2 * i},{i + 1},1\n" for i in range(101))
    windows = [replay("trace_csv", tmp_path, text, windows=4, window=k) for k in range(4)]
    prompts = np.concatenate([window.prompt_tokens for window in windows])
    assert prompts.tolist() == list(range(1, 102))
    assert [len(window) for window in windows] == [25, 25, 25, 26]
    for window in windows:
        assert window.arrival_s.tolist() == [2 * i for i in range(len(window))]


def test_requests_counts_from_the_start_of_the_window(tmp_path: Path) -> None:
    text = PLAIN + "".join(f"{i},{i + 1},1\n" for i in range(100))
    requests = replay("trace_csv", tmp_path, text, windows=2, window=1, requests=3)
    assert requests.prompt_tokens.tolist() == [51, 52, 53]
    assert requests.arrival_s.tolist() == [0, 1, 2]


def test_more_windows_than_requests(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"window 0 of 3 is empty, the trace holds 2 requests"):
        replay("trace_csv", tmp_path, PLAIN + "0,1,1\n1,1,1\n", windows=3, window=0)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"windows": 0}, "windows must be at least 1, got 0"),
        ({"windows": 4}, r"add workload\.window=0 \(0 to 3\)"),
        ({"windows": 4, "window": 4}, "window must be from 0 to 3, as windows=4; got 4"),
        ({"window": -1}, "window must be from 0 to 0, as windows=1; got -1"),
    ],
)
def test_refuses_windows_that_are_not_there(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WORKLOADS.build("azure_conv", params)


JSON = '{"arrival_s": 0, "prompt_tokens": 9, "output_tokens": 1}\n'
BEYOND_A_WORD = (
    '{"arrival_s": 0, "prompt_tokens": 900, "output_tokens": 1, "block_hashes": [1, 2.5]}'
)


@pytest.mark.parametrize(
    ("name", "text", "line", "says"),
    [
        (
            "azure_conv",
            AZURE + "2023-11-16 18:15:46,3,4\n2023-11-16 18:15:47,x,4\n",
            3,
            "expected int",
        ),
        ("azure_conv", AZURE + "2023-11-16 18:15:46,3,4\n2023-11-16 18:15:47,5,0\n", 3, ">= 1"),
        ("azure_conv", AZURE + "yesterday,3,4\n", 2, "TIMESTAMP"),
        ("azure_conv", AZURE + "2023-11-16 18:15:46,3\n", 2, "expected 3 fields"),
        ("azure_conv", "TIMESTAMP,ContextTokens\n", 1, "the column GeneratedTokens"),
        ("azure_conv", "a,b,c\n", 1, "the column TIMESTAMP"),
        ("azure_conv", b"\x00\x01\xff\xfe\n", 1, "the column TIMESTAMP"),
        ("trace_csv", PLAIN + "0,5,5\n\n1,5,-7\n", 4, ">= 1"),
        ("trace_csv", PLAIN + "0,5,5\n1,5.5,7\n", 3, "expected int"),
        ("trace_csv", PLAIN + "0,5,5\nnan,5,7\n", 3, "float"),
        ("trace_csv", PLAIN + "0,5,5\ninf,5,7\n", 3, "float"),
        ("trace_csv", PLAIN + "0,5,5\n1,99999999999,7\n", 3, "<= 2147483647"),
        ("trace_csv", PLAIN + "0,5,5\n1,5,7,9\n", 3, "expected 3 fields"),
        ("trace_csv", PLAIN.strip() + ",sesion\n0,5,5,a\n", 1, "did you mean 'session'?"),
        ("trace_jsonl", JSON + "\n" + '{"arrival_s": 0}\n', 3, "prompt_tokens"),
        ("trace_jsonl", JSON + '{"arrival_s": 0, \n', 2, "truncated"),
        ("trace_jsonl", JSON + "0,5,5\n", 2, "expected object, got int"),
        ("trace_jsonl", JSON + "{arrival_s: 0}\n", 2, ": JSON is malformed"),
        ("trace_jsonl", JSON + JSON.replace("9", '"9"'), 2, "expected int, got str"),
        ("trace_jsonl", JSON + JSON.replace('"arr', '"x": 1, "arr'), 2, "unknown field x"),
        ("trace_jsonl", JSON + BEYOND_A_WORD, 2, "block_hashes["),
        ("trace_jsonl", JSON + BEYOND_A_WORD.replace("2.5", "2, 3"), 2, "at most 2 hashes"),
        ("mooncake_conversation", MOONCAKE + "[]\n", 1001, "expected object, got array"),
        ("mooncake_conversation", MOONCAKE.replace(": 1290,", ": 90,"), 91, "at most 1 hashes"),
    ],
)
def test_a_malformed_line_is_named(
    name: str, text: str | bytes, line: int, says: str, tmp_path: Path
) -> None:
    with pytest.raises(WorkloadError) as error:
        replay(name, tmp_path, text)
    message = str(error.value)
    assert f"my.trace, line {line}: " in message
    assert says in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("azure_conv", "", "is empty; its first line should be TIMESTAMP,Context"),
        ("azure_conv", AZURE, "holds no request"),
        ("trace_csv", PLAIN + "\n", "holds no request"),
        ("trace_csv", "arrival_s," + PLAIN, "the column arrival_s is named twice"),
        ("trace_jsonl", "", "is empty; it should hold one JSON object a line"),
        ("mooncake_conversation", "\n\n", "is empty"),
    ],
)
def test_an_empty_file_is_said_to_be(name: str, text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=says):
        replay(name, tmp_path, text)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    trace = WORKLOADS.build("trace_csv", {"path": str(tmp_path / "none.csv")})
    with pytest.raises(WorkloadError, match=r"none\.csv is not a file"):
        trace.generate(0)


def test_a_folder_without_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPBAL_TRACES", str(tmp_path))
    with pytest.raises(
        WorkloadError, match=r"does not hold mooncake_conversation\.jsonl \(from kv"
    ):
        WORKLOADS.build("mooncake_conversation", {}).generate(0)
