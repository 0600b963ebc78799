"""What may become of a request, tried out on real engines; prints what is in flight after each.

Run as a module, in a process of its own: vLLM's engines are its children.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dpbal.backends.vllm import recorder
from dpbal.backends.vllm.settings import CONFIG, RECORDS, Settings
from dpbal.config import to_dict
from dpbal.modes import GroupKind
from tests.vllm.group import DISPATCHERS, KV_TOKENS, LENGTH, RANKS, Group, engines
from tests.vllm.settings import FOLLOWING, config

if TYPE_CHECKING:
    pass

Scenario = Callable[[Group], Coroutine[Any, Any, Any]]
"""Does something to a group, and returns what a test may ask about."""


async def finished(group: Group) -> Any:
    given = await asyncio.gather(*(group.ask() for _ in range(10)))
    return given, await group.until(lambda: group.acknowledged == group.sequences)


async def cancelled_before_it_is_accepted(group: Group) -> Any:
    before = group.dispatched
    for turns in range(6):  # of the event loop: before it is dispatched
        task = asyncio.create_task(group.ask(output_tokens=30))
        for _ in range(turns):
            await asyncio.sleep(0)
        await group.cancel(task)
    for _ in range(10):  # and as soon as it has been
        count = group.dispatched
        task = asyncio.create_task(group.ask(output_tokens=30))
        while group.dispatched == count:
            await asyncio.sleep(0)
        await group.cancel(task)
    return group.dispatched - before


async def cancelled_in_the_queue(group: Group) -> Any:
    tasks = [asyncio.create_task(group.ask(900, 60, rank=0)) for _ in range(5)]
    reports = group.front_end.dispatchers[0].table.reports
    has_queued = await group.until(lambda: not any(group.in_flight) and reports["waiting"][0] > 1)
    await group.cancel(*tasks[-2:])
    return has_queued, await asyncio.gather(*tasks[:3])


async def cancelled_in_mid_stream(group: Group) -> Any:
    tasks = []
    for rank in (0, 1, None):
        has_begun = asyncio.Event()
        tasks.append(asyncio.create_task(group.ask(20, 900, rank, has_begun=has_begun)))
        await group.until(has_begun.is_set)
    were_outstanding = sum(group.outstanding)
    await group.cancel(*tasks)
    return were_outstanding


async def rejected_by_the_front_end(group: Group) -> Any:
    from vllm.exceptions import VLLMValidationError

    before = group.dispatched
    message = ""
    try:
        await group.ask(LENGTH + 1)
    except VLLMValidationError as error:
        message = str(error)
    return group.dispatched - before, message


async def rejected_by_the_engine(group: Group) -> Any:
    from vllm.v1.engine import EngineCoreRequest

    before = group.dispatched
    request = EngineCoreRequest(
        request_id="neither to sample nor to pool",
        prompt_token_ids=[20] * 5,
        mm_features=None,
        sampling_params=None,
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )
    await group.client.add_request_async(request)
    return group.dispatched - before


async def preempted(group: Group) -> Any:
    return await asyncio.gather(*(group.ask(250, 300, rank=0) for _ in range(6)))


async def pinned(group: Group) -> Any:
    from vllm.exceptions import VLLMValidationError

    task = asyncio.create_task(group.ask(20, 20, rank=1))
    before = group.dispatched
    await group.until(lambda: group.dispatched > before)
    charged = group.outstanding
    message = ""
    try:
        await group.ask(rank=RANKS)
    except VLLMValidationError as error:
        message = str(error)
    return charged, await task, message


async def sampled_several_times(group: Group) -> Any:
    before = group.dispatched
    given = await group.ask(output_tokens=5, n=3)
    return given, group.dispatched - before


async def two_bursts(group: Group) -> Any:
    first = await asyncio.gather(*(group.ask(30, 10) for _ in range(6)))
    await asyncio.sleep(2)
    second = await asyncio.gather(*(group.ask(30, 10) for _ in range(6)))
    return first + second


async def one_rank_alone(group: Group) -> Any:
    return await asyncio.gather(*(group.ask(100, 50, rank=0) for _ in range(3)))


SHARED = [11] * 320
"""A prefix, of whole blocks."""


async def a_prefix_is_followed(group: Group) -> Any:
    first = await group.place([*SHARED, 1])
    is_known = await group.until(lambda: group.leading_blocks(SHARED) != [[0, 0], [0, 0]])
    others = [await group.place([*SHARED, 2 + number]) for number in range(5)]
    return first, others, is_known


async def an_eviction_is_known(group: Group) -> Any:
    before = group.leading_blocks(SHARED)
    for rank in range(RANKS):
        await asyncio.gather(*(group.ask(900, 60, rank) for _ in range(4)))
    is_gone = await group.until(lambda: group.leading_blocks(SHARED) == [[0, 0], [0, 0]])
    return before, is_gone, await group.place([*SHARED, 1])


async def a_reset_is_known(group: Group) -> Any:
    before = group.leading_blocks(SHARED)
    was_reset = await group.reset()
    # though no rank has a step to do, each says that its cache is empty
    is_known = await group.until(lambda: not any(map(any, group.leading_blocks(SHARED))))
    return before, was_reset, is_known, await group.place([*SHARED, 1])


def dispatched_before_a_report(count: int) -> Scenario:
    async def scenario(group: Group) -> Any:
        for pid in group.engines:
            os.kill(pid, signal.SIGSTOP)
        try:
            before = group.dispatched
            tasks = [asyncio.create_task(group.ask(1, 1)) for _ in range(count)]
            await group.until(lambda: group.dispatched == before + count)
            charged = group.in_flight
        finally:
            for pid in group.engines:
                os.kill(pid, signal.SIGCONT)
        given = await asyncio.gather(*tasks)
        return charged, sum(map(sum, given))

    scenario.__name__ = f"dispatched_{count}_before_a_report"
    return scenario


async def killed(group: Group) -> Any:
    """The last one: an engine dies, and so does the group."""
    from vllm.v1.engine.exceptions import EngineDeadError

    tasks = [asyncio.create_task(group.ask(20, 900, rank=0)) for _ in range(4)]
    await group.until(lambda: sum(group.outstanding) == len(tasks))
    os.kill(group.engines[0], signal.SIGKILL)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    return [isinstance(end, EngineDeadError) for end in ends]


INDEPENDENT: list[Scenario] = [
    finished,
    cancelled_before_it_is_accepted,
    cancelled_in_the_queue,
    cancelled_in_mid_stream,
    rejected_by_the_front_end,
    rejected_by_the_engine,
    preempted,
    pinned,
    sampled_several_times,
    *map(dispatched_before_a_report, (510, 511, 512, 5_000)),
    killed,
]
LOCKSTEP: list[Scenario] = [
    finished,
    one_rank_alone,
    cancelled_before_it_is_accepted,
    cancelled_in_mid_stream,
    two_bursts,
]
ASYNC: list[Scenario] = [
    finished,
    cancelled_before_it_is_accepted,
    cancelled_in_the_queue,
    cancelled_in_mid_stream,
    preempted,
    a_prefix_is_followed,
    an_eviction_is_known,
    a_reset_is_known,
]
RUNS: dict[str, tuple[GroupKind, bool, list[Scenario]]] = {
    "independent": (GroupKind.independent, False, INDEPENDENT),
    "lockstep": (GroupKind.lockstep, False, LOCKSTEP),
    "async": (GroupKind.independent, True, ASYNC),
    "async lockstep": (GroupKind.lockstep, True, LOCKSTEP),
}
NODES: dict[str, dict[str, Any]] = {
    "lockstep": {"transport": {"name": "gather", "interval_steps": 3}},
    "async": {**FOLLOWING, "transport": {"name": "manager"}},
    "async lockstep": {"transport": {"name": "zmq"}},
}
"""Other nodes of a run's config than those of its kind of group."""

BUDGETS = {GroupKind.independent: "fixed", GroupKind.lockstep: "level"}


async def run(name: str, folder: Path) -> dict[str, Any]:
    """Start engines, try one scenario after the other, and stop the engines."""
    kind, is_async, scenarios = RUNS[name]
    settings = Settings(
        config(
            kind,
            RANKS,
            DISPATCHERS,
            **NODES.get(name, {}),
            budget={"name": BUDGETS[kind]},
            backend={
                "name": "vllm",
                "kv_capacity_tokens": KV_TOKENS,
                "async_scheduling": is_async,
            },
        )
    )
    OmegaConf.save(OmegaConf.create(to_dict(settings.config)), folder / "config.yaml")
    records = folder / "records"
    records.mkdir()
    os.environ[CONFIG] = str(folder / "config.yaml")
    os.environ[RECORDS] = str(records)
    results: dict[str, Any] = {}
    async with engines(settings, folder) as group:
        for scenario in scenarios:
            results[scenario.__name__] = {"result": await scenario(group)}
            if scenario is not killed:
                results[scenario.__name__].update(await group.state())
        if killed not in scenarios:
            is_known = await group.until(lambda: group.acknowledged == group.sequences)
            results["still_acknowledged"] = is_known
        ledgers = [dispatcher.ledger for dispatcher in group.front_end.dispatchers]
        results["unknown_releases"] = [ledger.unknown_releases for ledger in ledgers]
    steps, _, _ = recorder.read(records, RANKS)
    results["preemptions"] = int(steps["preemptions"].sum())
    results["alone"] = int(steps["is_alone"].sum())
    results["steps"] = [int((steps["rank"] == rank).sum()) for rank in range(RANKS)]
    return results


def main() -> None:
    """Print what came of the scenarios that the first argument names."""
    with tempfile.TemporaryDirectory(prefix="dpbal-") as name:
        os.environ["VLLM_RPC_BASE_PATH"] = name
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.update(HF_HUB_OFFLINE="1", VLLM_HOST_IP="127.0.0.1", VLLM_NO_USAGE_STATS="1")
        results = asyncio.run(run(sys.argv[1], Path(name)))
    gc.collect()  # vLLM's client does not outlive the interpreter's last moments well
    print(json.dumps(results))


if __name__ == "__main__":
    main()
