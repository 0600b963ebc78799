from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dpbal.balancers import BALANCERS
from dpbal.bench import machine
from dpbal.bench.cli import main
from dpbal.bench.shm import CARRIED, PUBLISH, READ_NEW, READ_SAME
from dpbal.bench.subjects import VLLM_LOOP, DispatcherSubject, VllmLoop
from dpbal.bench.traffic import HELD_PER_RANK, RankLoad, Traffic
from dpbal.composition import compose
from dpbal.core import Request

CHOOSING = [name for name, cls in BALANCERS.items() if cls.chooses]


def measured(tmp_path: Path, *argv: str) -> dict[str, Any]:
    file = tmp_path / "out.json"
    main([*argv, "--json", str(file)])
    report: dict[str, Any] = json.loads(file.read_text())
    assert report["command"] == argv[0]
    assert report["machine"]["load_before"]["cores"] >= 1
    return report


def test_dispatch_has_a_row_for_every_balancer_and_for_vllm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--ranks", "2,8", "--repeats", "2", "--dispatches", "5")
    report = measured(tmp_path, "dispatch", *small)
    rows = report["rows"]
    names = [VLLM_LOOP, *CHOOSING]
    assert [(row["ranks"], row["subject"]) for row in rows] == [
        (n, k) for n in (2, 8) for k in names
    ]
    for row in rows:
        assert row["dispatches"] == 10
        assert 0 < row["p50_us_min"] <= row["p50_us"] <= row["p50_us_max"]
        assert row["target_us"] == (3.0 if row["ranks"] == 8 else None)
        reads = row["subject"] in BALANCERS and BALANCERS[row["subject"]].uses_signal
        assert (row["signal"] is not None) == reads
        assert row["share_of_vllm"] == 1 or row["subject"] != VLLM_LOOP
    printed = capsys.readouterr().out
    for name in names:
        assert name in printed
    assert "only dispatch() is timed" in printed
    assert printed.count(" cores") == 2


def test_dispatch_takes_only_the_balancers_that_are_asked_for(tmp_path: Path) -> None:
    report = measured(
        tmp_path, "dispatch", "--ranks", "2", "--balancer", "random", "--dispatches", "3"
    )
    assert [row["subject"] for row in report["rows"]] == [VLLM_LOOP, "random"]


def test_simulator_has_a_row_for_every_combination(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DPBAL_TRACES", raising=False)
    small = ("--ranks", "1,8", "--requests", "40", "--repeats", "2")
    report = measured(tmp_path, "simulator", *small)
    assert report["settings"]["load"] == 0.85
    keys = [(r["kind"], r["ranks"], r["balancer"], r["requests"]) for r in report["rows"]]
    assert len(set(keys)) == len(keys) == 2 * 2 * 2
    for row in report["rows"]:
        low, middle, high = row["requests_per_s"]
        assert 0 < low <= middle <= high
        assert row["rank_steps_per_s"][1] > 0
        assert row["workload"] == "conv_like"
    printed = capsys.readouterr().out
    assert "DPBAL_TRACES is not set" in printed
    assert printed.count("requests/s of 100,000") == 4


def test_simulator_replays_the_azure_trace_where_it_is(traces: Path, tmp_path: Path) -> None:
    report = measured(
        tmp_path, "simulator", "--ranks", "2", "--requests", "30", "--repeats", "1",
        "--kind", "independent", "--balancer", "round_robin",
    )  # fmt: skip
    (row,) = report["rows"]
    assert (row["workload"], row["requests"]) == ("azure_conv", 30)


def test_scale_runs_each_number_of_requests_and_tells_its_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = measured(
        tmp_path, "simulator", "--scale", "--requests", "20,40", "--ranks", "2", "--repeats", "1"
    )
    rows = report["rows"]
    assert [row["requests"] for row in rows] == [20, 40]
    for row in rows:
        assert (row["kind"], row["balancer"]) == ("lockstep", "least_prefill")
        assert 10e6 < row["peak_rss_run_bytes"] <= row["peak_rss_bytes"]
    assert "times the seconds a request of 20" in capsys.readouterr().out


def test_shm_has_a_row_for_every_operation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = measured(tmp_path, "shm", "--ranks", "3", "--repeats", "2", "--rounds", "4")
    rows = {(row["carried"], row["operation"]): row for row in report["rows"]}
    operations = (PUBLISH, READ_NEW, READ_SAME)
    assert list(rows) == [(carried, what) for carried in CARRIED for what in operations]
    for (_, what), row in rows.items():
        assert row["calls"] == 2 * 4 * (3 if what == PUBLISH else 1)
        assert 0 < row["p50_us_min"] <= row["p50_us"] <= row["p50_us_max"]
        assert row["target_us"] is None  # it is for 8 ranks
    printed = capsys.readouterr().out
    assert all(carried in printed for carried in CARRIED)


def test_shm_counts_torn_reads_with_the_seqlock_and_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = measured(tmp_path, "shm", "--torn", "2000", "--writers", "1")
    with_it, without = report["rows"]
    assert (with_it["seqlock"], with_it["reads"], with_it["torn"]) == (True, 2000, 0)
    assert (without["seqlock"], without["reads"]) == (False, 2000)
    assert "met: 0 torn in 2,000 slot reads with the seqlock" in capsys.readouterr().out


def test_the_peak_of_memory_grows_with_what_is_used() -> None:
    before = machine.peak_rss_bytes()
    block = bytearray(b"x") * 300_000_000
    assert machine.peak_rss_bytes() > before + len(block) / 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("dispatch --balancer randm", "unknown balancer 'randm'; did you mean 'random'?"),
        ("simulator --balancer randm", "unknown balancer 'randm'; did you mean 'random'?"),
        ("simulator --kind lockstp", "unknown kind 'lockstp'; did you mean 'lockstep'?"),
        ("simulator --workload conv_lik", "unknown workload 'conv_lik'; did you mean 'conv_like'?"),
        ("simulator --profile deepseek_v3_h100", "deepseek_v3_h200"),
        ("simulator --scale --workload azure_conv", "drop --workload"),
        ("simulator --workload azure_conv", "set DPBAL_TRACES to the folder"),
        ("simulator --ranks 0", "expected a whole number from 1 up, got '0'"),
        ("dispatch --ranks 8,-1", "expected a whole number from 1 up, got '-1'"),
        ("dispatch --ranks eight", "expected a whole number from 1 up, got 'eight'"),
        ("dispatch --ranks 70000", "--ranks may be up to 65536 here, got 70000"),
        ("dispatch --balancer ,", "expected names with commas between them, got ','"),
        ("shm --ranks 0", "expected a whole number from 1 up, got '0'"),
        ("transport --transport smh", "unknown transport 'smh'; did you mean 'shm'?"),
        ("transport --pace 0", "expected a number over 0, got '0'"),
        ("transport --seconds long", "expected a number over 0, got 'long'"),
        (
            "transport --ranks 5000",
            "--ranks may be up to 1024 here, for each is a process, got 5000",
        ),
        ("shm --torn none", "expected a whole number from 1 up, got 'none'"),
        ("dispatch --seed -1", "expected a whole number from 0 up, got '-1'"),
        ("dispatch --json absent/out.json", "there is no folder absent"),
        ("dispatsh", "invalid choice: 'dispatsh'"),
        ("", "required: COMMAND"),
    ],
)
def test_a_mistake_is_one_line(
    argv: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DPBAL_TRACES", raising=False)
    with pytest.raises(SystemExit) as end:
        main(argv.split())
    assert end.value.code in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dpbal-bench: ")
    assert message in line


IDLE = RankLoad(0, 0, 0, 0, 1000, 0.0, 0.0)


def test_vllms_loop_spreads_a_burst_over_idle_engines() -> None:
    loop = VllmLoop(3)
    chosen = [loop.rank_of(loop.dispatch(Request(k, 0.0, 10, 10), 0.0)) for k in range(6)]
    assert sorted(chosen) == [0, 0, 1, 1, 2, 2]


def test_vllms_loop_avoids_queues_behind_full_caches() -> None:
    loop = VllmLoop(2)
    loop.publish(0, IDLE._replace(waiting=2, held_tokens=1000))  # 2 + 6 * 2 * 0.5 = 8
    loop.publish(1, IDLE._replace(running=7))
    assert loop.rank_of(loop.dispatch(Request(1, 0.0, 10, 10), 0.0)) == 1


def test_vllms_loop_keeps_what_is_unfinished_when_counts_are_replaced() -> None:
    loop = VllmLoop(2)
    requests = [Request(k, 0.0, 10, 10) for k in range(4)]
    for request in requests[:3]:
        loop.dispatch(request, 0.0)
    for rank in range(2):
        loop.publish(rank, IDLE)
    crowded = max(range(2), key=lambda rank: loop.unfinished[loop.engines[rank]])
    assert loop.rank_of(loop.dispatch(requests[3], 0.0)) == 1 - crowded
    for request in requests:
        loop.finish(request)
    assert not +loop.unfinished
    assert not loop.engine_of


@pytest.mark.parametrize("name", CHOOSING)
def test_the_traffic_keeps_what_is_in_flight_bounded(name: str) -> None:
    subject = DispatcherSubject(compose(f"balancer={name}"), 4)
    traffic = Traffic(4, seed=0)
    dispatcher = subject.dispatch.__self__  # type: ignore[attr-defined]
    for _ in range(300):
        ended = traffic.ended()
        if ended is not None:
            subject.finish(ended)
        rank = traffic.reporter()
        subject.publish(rank, traffic.report(rank))
        request = traffic.next_request()
        traffic.place(request, subject.rank_of(subject.dispatch(request, 0.0)))
    assert dispatcher.ledger.outstanding.sum() == 4 * HELD_PER_RANK
    assert dispatcher.ledger.unknown_releases == 0
    for rank in range(4):
        subject.publish(rank, traffic.report(rank))
    dispatcher.ledger.observe(dispatcher.table)
    assert dispatcher.ledger.in_flight.requests.tolist() == [0, 0, 0, 0]
