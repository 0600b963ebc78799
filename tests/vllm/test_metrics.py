"""The metrics of a server say what is so, and nothing where nothing is known."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpbal.backends.base import REQUEST_RECORD, STEP_RECORD, Records
from dpbal.backends.vllm import recorder
from dpbal.backends.vllm.emulated import model
from dpbal.backends.vllm.front_end.front_end import FrontEnd
from dpbal.backends.vllm.front_end.prefixes import Prompt
from dpbal.backends.vllm.metrics.families import FAMILIES
from dpbal.backends.vllm.metrics.telemetry import Telemetry
from dpbal.backends.vllm.settings import RECORDS, TELEMETRY, Settings
from dpbal.core import LoadTable
from dpbal.metrics import straggler_share
from dpbal.modes import GroupKind
from dpbal.parts import build_dispatcher
from dpbal.transports import Shm
from dpbal.transports.base import Publisher
from tests.vllm.metrics_page import line
from tests.vllm.place import Place
from tests.vllm.settings import config, write
from tests.vllm.test_serve import complete, free_port, is_healthy, start

DOCS = Path(__file__).parents[2] / "docs"

AT_ONCE = 12
OWN_RECORD: dict[str, Any] = {
    "balancer": {"name": "marginal_prefill"},
    "signal": {"name": "sum", "terms": {"prefill_work": 1.0, "in_flight": 1.0}},
    "indexer": {"name": "own_record"},
}


class Server:
    """A front end of two ranks, which a test plays.

    Args:
        nodes: Of its config.
    """

    def __init__(self, **nodes: Any) -> None:
        self.settings = Settings(config(**nodes))
        self._exchange = Shm().create(2, 1)
        self.ranks: list[Publisher] = [
            Shm().publisher(self._exchange.address, rank) for rank in range(2)
        ]
        self.table = LoadTable(2)
        subscriber = Shm().subscriber(self._exchange.address, self.table)
        self.front_end = FrontEnd(
            [build_dispatcher(self.settings.config, self.table, 0)], subscriber
        )
        self.ledger = self.front_end.dispatchers[0].ledger

    def report(self, rank: int, receives: int | None = None, **fields: float) -> None:
        """Publish a report, which acknowledges all dispatches up to one of them."""
        publisher = self.ranks[rank]
        publisher.report["time_s"] = time.monotonic()
        for name, value in fields.items():
            publisher.report[name] = value
        if receives is not None:
            publisher.received_epoch[0] = self.ledger.epoch
            publisher.received_sequence[0] = receives
        publisher.publish()

    def close(self) -> None:
        self.front_end.close()
        for publisher in self.ranks:
            publisher.close()
        self._exchange.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def sample(name: str, **labels: str) -> float | None:
    """What this process says in ``/metrics``."""
    from prometheus_client import REGISTRY

    return REGISTRY.get_sample_value(name, labels)


def per_engine(name: str, engines: tuple[str, ...] = ("0", "1"), **labels: str) -> list[Any]:
    return [sample(name, engine=engine, **labels) for engine in engines]


def test_a_front_end_says_where_requests_went_and_what_became_of_them(server: Server) -> None:
    from dpbal.backends.vllm.metrics.counts import Ending
    from dpbal.backends.vllm.metrics.exporter import Exporter

    exporter = Exporter(server.front_end, server.settings, [4, 5])
    engines = ("4", "5")
    assert per_engine("dpbal_report_age_seconds", engines) == [None, None]
    assert per_engine("dpbal_reported_load", engines, signal="requests", unit="requests") == [
        None,
        None,
    ]
    server.report(0, running=2, waiting=1, holding_tokens=500)
    front_end = server.front_end
    for number, rank in enumerate([None, None, 1, 1, 0, None]):
        front_end.dispatch(str(number), Prompt(100 + number), pinned_rank=rank)
    exporter.flush()
    chosen = [sample("dpbal_choices_total", engine=e, by="balancer") for e in engines]
    assert chosen == [3, 0]  # the other has not reported
    assert per_engine("dpbal_choices_total", engines, by="client") == [1, 2]
    assert per_engine("dpbal_rank_selectable", engines) == [1, 0]
    assert per_engine("dpbal_in_flight_requests", engines) == [4, 2]
    assert per_engine("dpbal_in_flight_tokens", engines) == [100 + 101 + 104 + 105, 102 + 103]
    seconds = server.ledger.in_flight.prefill_s.tolist()
    assert per_engine("dpbal_in_flight_prefill_seconds", engines) == seconds
    labels = {"dispatcher": "0", "signal": "holding_tokens + in_flight", "unit": "tokens"}
    assert per_engine("dpbal_dispatcher_load", engines, **labels) == [910, None]
    assert per_engine("dpbal_reported_load", engines, signal="requests", unit="requests") == [
        3,
        None,
    ]
    age_s, missing = per_engine("dpbal_report_age_seconds", engines)
    assert age_s > 0
    assert missing is None
    assert sample("dpbal_decision_seconds_count") == 6
    assert sample("dpbal_decision_seconds_bucket", le="+Inf") == 6
    assert sample("dpbal_decision_report_age_seconds_count") == 4  # two had no report to go by

    server.report(0, receives=5)
    front_end.observe()
    for number, ending in enumerate([Ending.finished, Ending.aborted, Ending.error]):
        front_end.finish(str(number), ending)
    front_end.finish("nobody", Ending.finished)
    exporter.flush()
    causes = ("report", "end", "restart")
    # 0, 1 and 4 were received, 2 ended before its rank said so
    assert [sample("dpbal_ledger_releases_total", cause=c) for c in causes] == [3, 1, 0]
    assert per_engine("dpbal_in_flight_requests", engines) == [1, 1]
    assert per_engine("dpbal_outstanding_requests", engines) == [2, 1]
    hows = ("finished", "aborted", "error", "not_sent")
    assert [sample("dpbal_requests_ended_total", how=how) for how in hows] == [1, 1, 1, 0]
    assert sample("dpbal_ledger_unknown_releases_total") == 0
    assert per_engine("dpbal_expected_prefix_tokens_total", engines) == [None, None]
    exporter.close()


def test_what_is_expected_in_prefix_caches_is_counted() -> None:
    from dpbal.backends.vllm.metrics.exporter import Exporter

    server = Server(**OWN_RECORD)
    exporter = Exporter(server.front_end, server.settings, [0, 1])
    prompt = list(range(100, 164))
    for number in range(3):
        server.front_end.dispatch(str(number), Prompt(64, prompt, 16), pinned_rank=1)
    exporter.flush()
    assert per_engine("dpbal_expected_prefix_tokens_total") == [0, 63 + 63]
    exporter.close()
    server.close()


def test_a_second_engine_in_a_process_takes_the_place_of_the_first(server: Server) -> None:
    from prometheus_client import REGISTRY, generate_latest

    from dpbal.backends.vllm.metrics.exporter import Exporter

    first = Exporter(server.front_end, server.settings, [0, 1])
    server.front_end.dispatch("1", Prompt(10))
    first.flush()
    second = Exporter(server.front_end, server.settings, [0, 1])
    second.flush()
    assert sample("dpbal_decision_seconds_count") == 0
    first.close()
    assert sample("dpbal_decision_seconds_count") == 0
    second.close()
    assert b"dpbal_" not in generate_latest(REGISTRY)


def test_metrics_follow_in_the_event_loop_also_after_a_failure(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dpbal.backends.vllm.metrics import exporter as module

    warnings: list[str] = []
    monkeypatch.setattr(module, "PERIOD_S", 0.001)
    monkeypatch.setattr(module.LOG, "warning", lambda text, *_: warnings.append(text))
    exporter = module.Exporter(server.front_end, server.settings, [0, 1])
    exporter.start()  # too early
    observe, failures = server.front_end.observe, iter([True, True])

    def fail_twice() -> None:
        if next(failures, False):
            raise RuntimeError("cannot")
        observe()

    async def serve() -> None:
        exporter.start()
        exporter.start()
        monkeypatch.setattr(server.front_end, "observe", fail_twice)
        server.front_end.dispatch("1", Prompt(10))
        while sample("dpbal_decision_seconds_count") != 1:
            await asyncio.sleep(0.001)
        exporter.close()

    asyncio.run(asyncio.wait_for(serve(), 60))
    assert len(warnings) == 1


def test_ranks_of_other_hosts_have_no_sample_of_what_they_count(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dpbal.backends.vllm.metrics.exporter import Exporter
    from dpbal.backends.vllm.metrics.telemetry import RankTelemetry

    telemetry = Telemetry.create(2)
    monkeypatch.setenv(TELEMETRY, telemetry.address)
    rank = RankTelemetry(telemetry, 1)
    rank.give(0.25)
    exporter = Exporter(server.front_end, server.settings, [0, 1])
    assert per_engine("dpbal_rank_steps_total") == [None, 1]
    assert per_engine("dpbal_rank_local_seconds_total") == [None, 0.25]
    assert per_engine("dpbal_budget_level_seconds") == [None, None]
    assert sample("dpbal_group_steps_total") is None
    exporter.close()
    second = Exporter(server.front_end, server.settings, [0, 1], number=1)
    assert per_engine("dpbal_rank_steps_total") == [None, None]  # or they would add up
    second.close()
    telemetry.close()


def families_in(text: str) -> dict[str, float]:
    """Samples of ``/metrics``, by name and labels."""
    found = {}
    for row in text.splitlines():
        if row and not row.startswith("#"):
            name, _, value = row.rpartition(" ")
            found[name] = float(value)
    return found


def names_in(text: str) -> set[str]:
    """Names of metrics that a page or a dashboard speaks of."""
    return set(re.findall(r"\b(?:dpbal_|vllm:)[a-z0-9_]+\b", text))


def spoken_of() -> set[str]:
    """Names of metrics in the documentation: its page, and what the dashboard draws."""
    board = json.loads((DOCS / "grafana.json").read_text())
    drawn = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    return names_in("\n".join([(DOCS / "metrics.md").read_text(), *drawn]))


def test_the_documentation_describes_every_metric_and_draws_it() -> None:
    rows = [r for r in (DOCS / "metrics.md").read_text().splitlines() if r.startswith("| `")]
    assert rows == [line(family) for family in FAMILIES]
    board = json.loads((DOCS / "grafana.json").read_text())
    drawn = names_in(json.dumps([panel.get("targets", []) for panel in board["panels"]]))
    for family in FAMILIES:
        shown = f"{family.exported}_bucket" if family.bounds else family.exported
        assert shown in drawn
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in board["panels"]]
    assert len(set(places)) == len(places)


def scraped(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        return families_in(answer.read().decode())


def compared_steps(folder: Path) -> tuple[int, float]:
    """Steps of a lockstep group that its engines recorded, and its straggler share."""
    steps, gaps_s, _ = recorder.read(folder, 2)
    whole = recorder.with_idle_ranks(steps, 2)
    rows = np.zeros(len(whole), STEP_RECORD)
    rows["local_s"] = whole["local_s"]
    records = Records(
        np.zeros(0, REQUEST_RECORD), rows, gaps_s, np.zeros(0), 0.0, 2, GroupKind.lockstep
    )
    return len(rows) // 2, straggler_share(records)


@pytest.mark.slow
def test_several_front_end_processes_of_a_lockstep_group_speak_as_one(place: Place) -> None:
    folder = place.temporary
    served = str(model.write(folder / "model", True, 1024))
    budget = {"name": "level"}
    backend = {"name": "vllm", "kv_capacity_tokens": 8192}
    path = write(
        folder / "config.yaml",
        kind=GroupKind.lockstep,
        budget=budget,
        backend=backend,
        **OWN_RECORD,
    )
    records = folder / "dpbal-1" / "records"
    records.mkdir(parents=True)
    os.environ[RECORDS] = str(records)
    try:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        arguments = ("--port", str(port), "--api-server-count", "2", "--max-num-seqs", "32")
        started = start(place, served, path, *arguments)
    finally:
        del os.environ[RECORDS]
    place.wait(lambda: is_healthy(url), "a healthy server", started)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        prompts = [list(range(20, 60 + 7 * number)) for number in range(3 * AT_ONCE)]
        given = list(threads.map(lambda tokens: complete(url, served, tokens), prompts))
    assert len(given) == len(prompts)
    found: dict[str, float] = {}

    def total(name: str, label: str = "") -> float:
        several = (v for n, v in found.items() if n.partition("{")[0] == name and label in n)
        return sum(several)

    def is_settled() -> bool:
        found.update(scraped(url))
        steps = compared_steps(records)[0] if len(place.records()) == 2 else 0
        has_ended = total("dpbal_requests_ended_total", 'how="finished"') == len(prompts)
        # processes write while they are read, so that one number may be newer than another
        counted = ("dpbal_decision_seconds_count", "dpbal_ledger_releases_total")
        has_counted = all(total(name) == len(prompts) for name in counted)
        holding = ("dpbal_in_flight_requests", "dpbal_outstanding_requests")
        is_idle = not any(map(total, holding))
        has_compared = total("dpbal_group_steps_total") == steps > 0
        return has_ended and has_counted and is_idle and has_compared

    place.wait(is_settled, "all steps in the metrics", started)
    assert total("dpbal_choices_total", 'by="balancer"') == len(prompts)
    assert total("dpbal_ledger_unknown_releases_total") == 0
    assert total("dpbal_rank_selectable") == 2
    assert total("dpbal_info") == 1
    assert total("dpbal_rank_steps_total") == sum(
        len(np.fromfile(records / f"steps.{rank}", recorder.ENGINE_STEP)) for rank in range(2)
    )
    assert total("dpbal_group_steps_skipped_total") == 0
    mean_s = total("dpbal_group_step_mean_seconds_total")
    longest_s = total("dpbal_group_step_longest_seconds_total")
    share = compared_steps(records)[1]
    assert 0 < share < 1
    assert 1 - mean_s / longest_s == pytest.approx(share, abs=1e-6)
    assert total("dpbal_budget_steps_total") >= 2 * total("dpbal_group_steps_total")
    assert not [name for name in found if name.startswith("dpbal_") and "pid=" in name]

    exported = {name.partition("{")[0] for name in found}
    parts = ("_bucket", "_count", "_sum")
    histograms = {name[: -len(part)] for name in exported for part in parts if name.endswith(part)}
    of_dpbal = {name for name in exported if name.startswith("dpbal_") and not name.endswith(parts)}
    known = {family.exported for family in FAMILIES}
    assert known <= exported | histograms
    assert of_dpbal <= known
    assert spoken_of() <= exported | histograms

    started.send_signal(signal.SIGINT)
    started.communicate(timeout=60)
    place.wait(lambda: not place.left()["processes"], "a clean end")
    assert place.left()["segments"] == []
