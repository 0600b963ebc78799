"""``dpbal-serve`` before anything is started: mistakes, and what it would do."""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path

import numpy as np
import pytest

from dpbal.backends.vllm.emulated import EXECUTOR
from dpbal.backends.vllm.serve.cli import main
from dpbal.backends.vllm.serve.herding import advice
from dpbal.backends.vllm.settings import CONFIG, Settings
from dpbal.composition import compose
from dpbal.core import LoadTable
from dpbal.modes import GroupKind
from tests.vllm.settings import config, write

TWO = ["--data-parallel-size", "2"]
FOUR_OF_TWO_HOSTS = ["--data-parallel-size", "4", "--data-parallel-size-local", "2"]
HYBRID = [*FOUR_OF_TWO_HOSTS, "--data-parallel-hybrid-lb"]
EMULATED = ["--distributed-executor-backend", EXECUTOR]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command may set is put back, and what it reads is not there."""
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    for name in (CONFIG, "VLLM_PLUGINS"):
        monkeypatch.delenv(name, raising=False)


def dry_run(model: Path, overrides: list[str], *arguments: str) -> None:
    engine = ["--skip-tokenizer-init", "--load-format", "dummy", "--enforce-eager"]
    main([*overrides, "--dry-run", "--", str(model), *engine, *arguments])


def mistake(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that was said of it."""
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith("dpbal-serve: ")
    assert line.count("\n") == 1
    return line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "what is to be served? type dpbal-serve  -- MODEL"),
        (["+balancer=random"], "type dpbal-serve +balancer=random -- MODEL"),
        (["+balancer=random", "--"], "what follows -- is vllm serve's"),
        (["+balancer=randm", "--", "model"], "did you mean 'random'?"),
        (["--dryrun", "--", "model"], "unrecognized arguments: --dryrun"),
        (["backend=simulator", "--", "model"], "leave out backend=simulator"),
        (["--", "model", "--data-parallel-sizes", "2"], "arguments: --data-parallel-sizes 2"),
        (["--", "model", *TWO, "--data-parallel-backend", "ray"], "--data-parallel-backend mp"),
        (["--", "./no-such-model", *TWO], "vllm serve: "),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert says in mistake(capsys)


@pytest.mark.parametrize(
    ("kind", "overrides", "arguments", "says"),
    [
        ("independent", [], [], "over 1 rank; type --data-parallel-size N"),
        ("independent", ["group.ranks=3"], TWO, "group.ranks=3, but vLLM is asked for 2"),
        ("independent", ["group.kind=lockstep"], TWO, "set group.kind to independent"),
        ("lockstep", ["group.kind=independent"], TWO, "set group.kind to lockstep"),
        ("independent", ["transport=local"], TWO, "exists in the simulator only"),
        ("independent", ["transport=gather"], TWO, "ranks of an independent group step alone"),
        ("independent", ["balancer=lmetric", "indexer=oracle"], TWO, "simulator only"),
        ("independent", [], FOUR_OF_TWO_HOSTS, "type transport=zmq with transport.hosts"),
        ("lockstep", ["budget=level"], HYBRID, "type budget=fixed, interval or time_cap"),
        ("lockstep", [], [*HYBRID, *EMULATED], "wait for each other on one host"),
        (
            "independent",
            ["transport=zmq", "transport.hosts=[127.0.0.1,127.0.0.2]", "transport.port=20000"],
            HYBRID,
            "leave out transport.hosts",
        ),
        (
            "independent",
            [],
            [*TWO, "--scheduler-cls", "vllm.v1.core.sched.interface.SchedulerInterface"],
            "publishes no load reports",
        ),
        ("independent", [], [*TWO, "--scheduler-cls", "nosuch.Scheduler"], "No module named"),
        ("independent", [], [*TWO, "--grpc"], "leave out --grpc"),
        ("independent", [], [*TWO, "--headless", "--api-server-count", "2"], "leave out --api"),
        ("independent", [], [*TWO, "--api-server-count", "-1"], "must be at least 1, got -1"),
        (
            "independent",
            [],
            [*TWO, "--enable-auto-tool-choice", "--tool-call-parser", "nosuch"],
            "invalid tool call parser: nosuch",
        ),
        ("independent", ["group={ranks: 3}"], TWO, "group.ranks=3, but vLLM is asked for 2"),
    ],
)
def test_a_server_that_could_not_work_is_refused_before_it_starts(
    capsys: pytest.CaptureFixture[str],
    model_folders: dict[GroupKind, Path],
    kind: str,
    overrides: list[str],
    arguments: list[str],
    says: str,
) -> None:
    with pytest.raises(SystemExit, match="2"):
        dry_run(model_folders[GroupKind[kind]], overrides, *arguments)
    assert says in mistake(capsys)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [(CONFIG, "dpbal.yaml", "unset DPBAL_CONFIG"), ("VLLM_PLUGINS", "other", "add dpbal to it")],
)
def test_an_environment_that_contradicts_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    says: str,
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="2"):
        main(["--", "model", *TWO])
    assert says in mistake(capsys)


@pytest.mark.parametrize(
    ("kind", "overrides", "arguments", "rows"),
    [
        (
            "independent",
            ["+balancer=minimum_tokens"],
            [*TWO, "--api-server-count", "1"],
            [
                "balancer     minimum_tokens",
                "group        2 independent ranks",
                "API servers  1, each a dispatcher",
                "transport    shm",
                "profile      not read",
                "GPUs         vLLM's own",
                "KV events    as without dpbal",
                "prefill      as without dpbal",
            ],
        ),
        (
            "lockstep",
            ["+balancer=marginal_prefill", "indexer=kv_events", "budget=level"],
            [*TWO, *EMULATED],
            [
                "indexer      kv_events",
                "group        2 lockstep ranks",
                "API servers  2, each a dispatcher",
                "GPUs         emulated",
                "KV events    on; ",
                "prefill      of each step limited by budget level",
            ],
        ),
        (
            "independent",
            ["balancer=vllm_native"],
            HYBRID,
            [
                "balancer     vllm_native (vLLM chooses)",
                "group        2 independent ranks of this host, of 4 in all",
                "front ends   nothing: vLLM chooses the rank",
            ],
        ),
        (
            "independent",
            ["transport=zmq", "transport.hosts=[127.0.0.1,127.0.0.2]", "transport.port=20000"],
            [*FOUR_OF_TWO_HOSTS, "--headless"],
            ["group        4 independent ranks, 2 of them on this host", "API servers  none"],
        ),
    ],
)
def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    capsys: pytest.CaptureFixture[str],
    model_folders: dict[GroupKind, Path],
    kind: str,
    overrides: list[str],
    arguments: list[str],
    rows: list[str],
) -> None:
    dry_run(model_folders[GroupKind[kind]], overrides, *arguments)
    out, _ = capsys.readouterr()
    for row in rows:
        assert f"  {row}" in out
    assert CONFIG not in os.environ
    (writing,) = [line for line in out.splitlines() if "dpbal-run --cfg job" in line]
    words = shlex.split(writing.partition("--cfg job")[2].partition(">")[0])
    written = compose(*words)
    Settings(written).check()
    assert written.group.kind is GroupKind[kind]
    assert written.group.ranks == (4 if "--headless" in arguments else 2)


@pytest.mark.parametrize(
    ("overrides", "warns"),
    [
        (["+balancer=least_prefill"], True),
        (["+balancer=least_prefill", "profile=llama31_8b_h100"], False),
        (["+balancer=minimum_tokens"], False),
    ],
)
def test_seconds_of_a_profile_that_nobody_chose_are_warned_of(
    capsys: pytest.CaptureFixture[str],
    model_folders: dict[GroupKind, Path],
    overrides: list[str],
    warns: bool,
) -> None:
    dry_run(model_folders[GroupKind.independent], overrides, *TWO)
    assert ("type profile=NAME" in capsys.readouterr().err) is warns


ALONE = "--api-server-count 1"
APART = ["signal.terms.decode_work=0", "balancer.ties=random"]
DRAWN = ["+balancer=least_prefill", "balancer.ties=random"]
UNSETTLED = ["+balancer=least_prefill", "signal=prefill_work"]


@pytest.mark.parametrize(
    ("overrides", "front_ends", "instead"),
    [
        (["+balancer=least_prefill"], 2, f"{' '.join(APART)}, or {ALONE}"),
        (DRAWN, 2, f"{APART[0]}, or {ALONE}"),
        (UNSETTLED, 2, f"{APART[1]}, or {ALONE}"),
        (["+balancer=least_prefill", *APART], 2, None),
        (["+balancer=least_prefill"], 8, ALONE),
        (["+balancer=least_prefill", *APART], 8, ALONE),
        (["+balancer=least_prefill", *APART, "budget=level"], 8, None),
        (["+balancer=minimum_tokens"], 2, ALONE),
        (["+balancer=minimum_tokens"], 1, None),
        (["+balancer=least_prefill"], 0, None),
        (["+balancer=round_robin"], 8, None),
    ],
)
def test_where_front_ends_would_herd_there_is_advice(
    overrides: list[str], front_ends: int, instead: str | None
) -> None:
    combination = compose("backend=vllm", *overrides)
    assert advice(combination, front_ends) == instead
    typed = [word for word in (instead or "").split(", or ")[0].split() if "=" in word]
    assert advice(compose("backend=vllm", *overrides, *typed), front_ends) in (None, ALONE)


@pytest.mark.parametrize(
    ("overrides", "arguments", "servers"),
    [
        ([], TWO, 2),
        ([], [*TWO, "--api-server-count", "1"], None),
        (["group.dispatchers=1"], TWO, 2),
        (["transport=zmq"], [*FOUR_OF_TWO_HOSTS, "--api-server-count", "1"], None),
        (["transport=zmq"], [*FOUR_OF_TWO_HOSTS, "--headless"], None),
    ],
)
def test_servers_that_herd_are_warned_of_by_their_number(
    capsys: pytest.CaptureFixture[str],
    model_folders: dict[GroupKind, Path],
    overrides: list[str],
    arguments: list[str],
    servers: int | None,
) -> None:
    words = ["+balancer=least_prefill", *overrides]
    if "transport=zmq" in overrides:
        words += ["transport.hosts=[10.0.0.1,10.0.0.2]", "transport.port=20000"]
    dry_run(model_folders[GroupKind.independent], words, *arguments)
    said = capsys.readouterr().err
    assert ("do not know of each other" in said) is (servers is not None)
    assert servers is None or f"{servers} API servers" in said


def test_a_config_may_be_in_the_environment_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(CONFIG, Settings(config(ranks=5)).to_environment())
    from_json = Settings.from_environment().config
    monkeypatch.setenv(CONFIG, str(write(tmp_path / "config.yaml", ranks=5)))
    assert from_json == Settings.from_environment().config == config(ranks=5)


def test_a_rank_that_is_gone_or_back_is_logged_once() -> None:
    from dpbal.backends.vllm.serve.logged import LOG, RankWatch

    said: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    LOG.addHandler(listener)
    level = LOG.level
    LOG.setLevel(logging.INFO)
    table = LoadTable(2)
    watch = RankWatch(table)

    def heard(*present: bool) -> list[str]:
        said.clear()
        table.set_present(np.array(present))
        for _ in range(2):
            watch.look((8, 9))
        return said

    try:
        assert heard(True, True) == []
        assert heard(True, False) == ["dpbal: rank 9 is gone or silent; it gets no requests"]
        assert heard(True, True) == ["dpbal: rank 9 is back"]
    finally:
        LOG.setLevel(level)
        LOG.removeHandler(listener)
