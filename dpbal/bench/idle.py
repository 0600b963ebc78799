"""The share of a core that idle engines use, with dpbal and without."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import psutil

from dpbal.backends.vllm.backend import Vllm
from dpbal.backends.vllm.front_end.front_end import FrontEnd
from dpbal.backends.vllm.runs import server
from dpbal.backends.vllm.settings import Settings
from dpbal.composition import compose
from dpbal.experiment import build_parts

if TYPE_CHECKING:
    from vllm import AsyncEngineArgs

SETTLE_S = 3.0
"""After the start, before the first look."""


@dataclass(frozen=True)
class IdleRow:
    """What a server of idle engines uses.

    Attributes:
        subject: vLLM untouched, or with dpbal.
        ranks: Its engines.
        core_share: Median over the looks: cores, front end and coordinator included.
        core_share_min: Smallest look.
        core_share_max: Largest look.
    """

    subject: str
    ranks: int
    core_share: float
    core_share_min: float
    core_share_max: float


def measure(ranks: int, seconds: float, looks: int) -> list[IdleRow]:
    """Start both servers, one after the other, and look at their processor time.

    Raises:
        MissingExtraError: If vLLM is not installed.
        EngineError: If the engines did not start.
    """
    rows = []
    for subject, with_dpbal in (("vLLM", False), ("vLLM and dpbal", True)):
        shares = _core_shares(ranks, seconds, looks, with_dpbal)
        rows.append(IdleRow(subject, ranks, median(shares), min(shares), max(shares)))
    return rows


def _core_shares(ranks: int, seconds: float, looks: int, with_dpbal: bool) -> list[float]:
    from dpbal.backends.vllm.plugin import installed

    config = compose(
        "backend=vllm", "group.kind=independent", f"group.ranks={ranks}", "balancer=minimum_tokens"
    )
    parts = build_parts(config)
    settings = Settings(config)

    def front_end(*_: int) -> FrontEnd:
        return FrontEnd.connect(settings, parts.dispatchers)

    plugin = installed(settings, front_end) if with_dpbal else nullcontext()
    with tempfile.TemporaryDirectory(prefix="dpbal-") as name:
        folder = Path(name)
        with server.environment(folder, config), plugin:
            os.environ["VLLM_PLUGINS"] = ""  # engines that are spawned do not load dpbal's
            args = server.engine_args(Vllm(), parts, folder, longest=1024)
            return asyncio.run(_look(args, seconds, looks))


async def _look(args: AsyncEngineArgs, seconds: float, looks: int) -> list[float]:
    shares = []
    async with server.running(args):
        await asyncio.sleep(SETTLE_S)
        for _ in range(looks):
            before_s = _processor_s()
            await asyncio.sleep(seconds)
            shares.append((_processor_s() - before_s) / seconds)
    return shares


def _processor_s() -> float:
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))
