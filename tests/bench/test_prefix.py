from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpbal.bench.cli import main
from dpbal.bench.prefix import ALL, DISPATCH, HASH, LOOK_UP, NAMES, ONE


def test_prefix_has_a_row_for_every_indexer_and_hashing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.json"
    argv = "prefix --ranks 2,8 --blocks 20,1000 --repeats 2 --rounds 4 --json"
    main([*argv.split(), str(file)])
    first, *rows = json.loads(file.read_text())["rows"]
    assert (first["operation"], first["indexer"]) == (HASH, None)
    assert [
        (row["ranks"], row["blocks"], row["holders"], row["indexer"], row["operation"])
        for row in rows
    ] == [
        (ranks, blocks, holders, name, operation)
        for ranks in (2, 8)
        for blocks in (20, 1000)
        for holders in (ALL, ONE)
        for name in NAMES
        for operation in (LOOK_UP, DISPATCH)
    ]
    for row in rows:
        assert 0 < row["p50_us_min"] <= row["p50_us"] <= row["p50_us_max"]
        assert row["bytes_per_block"] > 8 + 4 * row["ranks"]
        is_target = (row["ranks"], row["blocks"], row["operation"]) == (8, 1000, LOOK_UP)
        assert row["target_us"] == (50.0 if is_target else None)
    printed = capsys.readouterr().out
    for name in NAMES:
        assert f"{name}, look up, {ALL}: p50" in printed


def test_prefix_takes_only_indexers_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prefix", "--indexer", "own_recrd"])
    assert "unknown indexer 'own_recrd'; did you mean 'own_record'?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["prefix", "--indexer", "oracle"])  # there is no simulator here
    assert "unknown indexer 'oracle'" in capsys.readouterr().err
