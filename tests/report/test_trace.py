"""A trace holds all of a run: its steps, waits, counters and requests, in microseconds."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars
import pytest
from polars import col

import dpbal
from dpbal.comparison.load import Run, read
from dpbal.errors import ConfigError
from dpbal.experiment import run as run_config
from dpbal.report.trace import export

Event = dict[str, Any]

SMALL = ("workload.requests=60", "group.ranks=4", "compare=false", "workload.load=0.9")
ROUNDING_US = 0.5


class Traced:
    """A run, its tables, and the events of its trace."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        run_config(dpbal.compose(*SMALL, *overrides), folder, show=False)
        self.run = Run(folder, str(folder), read(folder / "result.json"))
        self.requests = polars.read_parquet(folder / "requests.parquet")
        self.steps = polars.read_parquet(folder / "steps.parquet")
        self.file = folder / "trace.json.gz"
        export(self.run, self.file)
        self.trace = json.loads(gzip.decompress(self.file.read_bytes()))
        self.events: list[Event] = self.trace["traceEvents"]

    def slices(self, category: str) -> list[Event]:
        return [e for e in self.events if e["ph"] == "X" and e["cat"] == category]

    def request(self, number: int) -> list[Event]:
        """Its slices, as pairs of ends that nest."""
        found: list[Event] = []
        opened: list[Event] = []
        for event in self.events:
            if event.get("cat") != "request" or event["id2"]["local"] != str(number):
                continue
            if event["ph"] == "b":
                opened.append(event)
                found.append(event)
            else:
                begin = opened.pop()
                assert begin["name"] == event["name"]
                begin["end"] = event["ts"]
        assert not opened
        return found


@pytest.fixture(scope="module")
def lockstep(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    return Traced(tmp_path_factory.mktemp("lockstep"))


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    return Traced(tmp_path_factory.mktemp("cut_off"), "backend.max_time_s=10", "backend.hold=true")


@pytest.fixture(scope="module")
def independent(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    return Traced(tmp_path_factory.mktemp("independent"), "group.kind=independent")


@pytest.mark.parametrize("name", ["lockstep", "cut_off", "independent"])
def test_every_step_with_work_is_a_slice_of_its_length(
    name: str, request: pytest.FixtureRequest
) -> None:
    traced: Traced = request.getfixturevalue(name)
    worked = traced.steps.filter(col("prefill_tokens") + col("decode_seqs") > 0)
    slices = traced.slices("step")
    assert len(slices) == worked.height > 0
    for slice_, row in zip(slices, worked.iter_rows(named=True), strict=True):
        assert slice_["ts"] == pytest.approx(row["start_s"] * 1e6, abs=ROUNDING_US)
        assert slice_["dur"] == pytest.approx(
            (row["end_s"] - row["start_s"]) * 1e6, abs=2 * ROUNDING_US
        )
        for key in ("prefill_tokens", "decode_seqs", "running", "waiting", "kv_used_tokens"):
            assert slice_["args"][key] == row[key]


def test_waits_are_the_rank_time_of_the_straggler_share(lockstep: Traced) -> None:
    local_s = lockstep.steps["local_s"].to_numpy().reshape(-1, 4)
    rank_time_us = local_s.max(axis=1).sum() * 4 * 1e6
    waits = lockstep.slices("wait")
    waited_us = sum(wait["dur"] for wait in waits)
    share = lockstep.run.result.straggler_share
    assert share is not None
    assert waited_us == pytest.approx(share * rank_time_us, abs=2 * ROUNDING_US * len(waits))
    assert {"wait", "idle"} == {wait["name"] for wait in waits}


def test_a_wait_lies_in_its_step_and_names_the_slowest_rank(lockstep: Traced) -> None:
    steps = {(e["tid"], e["ts"]): e for e in lockstep.slices("step")}
    waits = [e for e in lockstep.slices("wait") if e["name"] == "wait"]
    by_time = sorted(steps.values(), key=lambda e: int(e["ts"]))
    for wait in waits:
        around = [
            e
            for e in by_time
            if e["tid"] == wait["tid"] and e["ts"] <= wait["ts"] < e["ts"] + e["dur"]
        ]
        assert len(around) == 1
        assert wait["ts"] + wait["dur"] <= around[0]["ts"] + around[0]["dur"]
        slowest = wait["args"]["slowest_rank"]
        row = lockstep.steps.filter(
            ((col("start_s") * 1e6 - around[0]["ts"]).abs() <= ROUNDING_US)
            & (col("rank") == slowest)
        )
        done_us = (row["start_s"] + row["local_s"]).item() * 1e6
        assert wait["ts"] + wait["dur"] == pytest.approx(done_us, abs=ROUNDING_US)


def test_no_rank_waits_in_an_independent_group(independent: Traced) -> None:
    assert independent.slices("wait") == []


@pytest.mark.parametrize("name", ["lockstep", "cut_off", "independent"])
def test_every_request_is_there_once_from_arrival_to_end(
    name: str, request: pytest.FixtureRequest
) -> None:
    traced: Traced = request.getfixturevalue(name)
    outer = [e for e in traced.events if e["ph"] == "b" and "args" in e]
    assert [e["args"]["request"] for e in outer] == list(range(traced.requests.height))
    for number, row in enumerate(traced.requests.iter_rows(named=True)):
        whole, *parts = traced.request(number)
        assert whole["ts"] == pytest.approx(row["arrival_s"] * 1e6, abs=ROUNDING_US)
        for key in ("outcome", "rank", "prompt_tokens", "output_tokens", "cached_tokens"):
            assert whole["args"][key] == row[key]
        lengths = Counter({part["name"].split(",")[0]: part["end"] - part["ts"] for part in parts})
        assert all(whole["ts"] <= part["ts"] <= part["end"] <= whole["end"] for part in parts)
        if row["outcome"] == "finished":
            assert whole["end"] == pytest.approx(row["finish_s"] * 1e6, abs=ROUNDING_US)
            ttft_us = (row["first_token_s"] - row["arrival_s"]) * 1e6
            assert lengths["to first token"] == pytest.approx(ttft_us, abs=2 * ROUNDING_US)
            assert lengths["decode"] == whole["end"] - whole["ts"] - lengths["to first token"]


def test_what_did_not_finish_ends_with_the_run_and_says_so(cut_off: Traced) -> None:
    end_s = cut_off.steps.select(col("end_s").max()).item()
    under_way = late = 0
    for number, row in enumerate(cut_off.requests.iter_rows(named=True)):
        whole, *parts = cut_off.request(number)
        if row["outcome"] == "finished":
            assert not any("," in part["name"] for part in parts)
        elif row["dispatch_s"] is not None:
            assert whole["end"] == pytest.approx(end_s * 1e6, abs=ROUNDING_US)
            phases = [part["name"] for part in parts if part["name"] != "before dispatch"]
            assert phases[-1].endswith(", unfinished")
            under_way += 1
        else:
            assert whole["name"] == "no rank"
            late += 1
    assert under_way > 0
    assert late > 0


def test_a_held_request_waits_from_its_arrival(cut_off: Traced) -> None:
    held = cut_off.requests.with_row_index("number").filter(
        col("dispatch_s") > col("arrival_s"), col("first_token_s").is_not_null()
    )
    assert held.height > 0
    for row in held.iter_rows(named=True):
        whole, first_token, before = cut_off.request(row["number"])[:3]
        assert before["name"] == "before dispatch"
        assert whole["ts"] == first_token["ts"] == before["ts"]
        assert before["end"] == pytest.approx(row["dispatch_s"] * 1e6, abs=ROUNDING_US)


def test_counters_say_what_ranks_hold(independent: Traced) -> None:
    names = {e["pid"]: e["args"]["name"] for e in independent.events if e["name"] == "process_name"}
    for title, column in (
        ("waiting requests", "waiting"),
        ("running requests", "running"),
        ("KV cache tokens", "kv_used_tokens"),
    ):
        for rank in range(4):
            at: dict[int, int] = {
                e["ts"]: next(iter(e["args"].values()))
                for e in independent.events
                if e["ph"] == "C"
                and names[e["pid"]].startswith(title)
                and e["name"] == f"rank {rank}"
            }
            value = None
            for row in independent.steps.filter(col("rank") == rank).iter_rows(named=True):
                value = at.get(round(row["end_s"] * 1e6), value)
                assert value == row[column]


def test_the_prefill_counter_is_zero_between_steps(independent: Traced) -> None:
    pid = next(
        e["pid"]
        for e in independent.events
        if e["name"] == "process_name" and e["args"]["name"].startswith("prefill tokens")
    )
    counts = [e for e in independent.events if e["ph"] == "C" and e["pid"] == pid]
    area = 0
    for rank in range(4):
        own = [e for e in counts if e["name"] == f"rank {rank}"]
        values = [e["args"]["tokens"] for e in own]
        assert values[-1] == 0
        assert all(a != b for a, b in pairwise(values))
        ends = [e["ts"] for e in own[1:]]
        area += sum(v * (end - e["ts"]) for v, e, end in zip(values, own, ends, strict=False))
    length_s = col("end_s") - col("start_s")
    expected = independent.steps.select((col("prefill_tokens") * length_s).sum()).item() * 1e6
    assert area == pytest.approx(expected, rel=1e-4)


def test_the_same_run_gives_the_same_bytes(lockstep: Traced, tmp_path: Path) -> None:
    again = tmp_path / "other.json.gz"
    export(lockstep.run, again)
    assert again.read_bytes() == lockstep.file.read_bytes()


def test_a_trace_says_what_its_numbers_are(lockstep: Traced, tmp_path: Path) -> None:
    assert lockstep.trace["otherData"]["numbers are"] == "simulated"
    titles = [e["args"]["name"] for e in lockstep.events if e["name"] == "process_name"]
    assert titles
    assert all("(simulated)" in title for title in titles)

    for file in lockstep.run.directory.glob("*.parquet"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    result = json.loads((lockstep.run.directory / "result.json").read_text())
    result["emulation"] = {"engines": "vLLM 0.32.0", "dilation": 20.0}
    (tmp_path / "result.json").write_text(json.dumps(result))
    export(Run(tmp_path, "", lockstep.run.result), tmp_path / "trace.json.gz")
    trace = json.loads(gzip.decompress((tmp_path / "trace.json.gz").read_bytes()))
    titles = [e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"]
    assert all("emulated GPUs" in title for title in titles)
    assert "vLLM 0.32.0 engines, emulated GPUs" in trace["otherData"]["numbers are"]


def test_tracks_have_names_and_no_number_that_perfetto_reserves(lockstep: Traced) -> None:
    named = {(e["pid"], e["tid"]) for e in lockstep.events if e["name"] == "thread_name"}
    processes = {e["pid"] for e in lockstep.events}
    for event in lockstep.events:
        if event["ph"] in "Xbe":
            assert (event["pid"], event["tid"]) in named
        if event["ph"] != "M":
            assert event["tid"] not in {0, *processes}


def test_a_run_without_its_steps_is_refused(lockstep: Traced, tmp_path: Path) -> None:
    for name in ("result.json", "requests.parquet"):
        (tmp_path / name).write_bytes((lockstep.run.directory / name).read_bytes())
    with pytest.raises(ConfigError, match=r"holds no steps\.parquet"):
        export(Run(tmp_path, "", lockstep.run.result), tmp_path / "trace.json.gz")
    assert not (tmp_path / "trace.json.gz").exists()
