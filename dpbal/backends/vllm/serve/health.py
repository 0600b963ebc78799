"""``GET /dpbal/health``: the ranks of a server as the front end that answers sees them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import State

from dpbal import __version__
from dpbal.backends.vllm.combination import describe
from dpbal.backends.vllm.serve.drain import is_draining
from dpbal.backends.vllm.serve.endpoints import HEALTH
from dpbal.backends.vllm.settings import REPORTS, Settings, address
from dpbal.core import LoadTable

if TYPE_CHECKING:
    import numpy as np
    from vllm.engine.protocol import EngineClient

    from dpbal.backends.vllm.front_end.front_end import FrontEnd

STALLED_S = 10.0
"""A rank with work whose newest report is older has stalled."""

REPORTED = (
    "running",
    "waiting",
    "holding_tokens",
    "kv_used_tokens",
    "kv_capacity_tokens",
)


class Health:
    """An endpoint plug-in of vLLM, which is there where dpbal is.

    Args:
        settings: What the server does.
    """

    name = "dpbal"
    required_tasks = None

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def attach_router(self, app: FastAPI) -> None:
        """Add the path."""
        app.add_api_route(HEALTH, health, methods=["GET"])

    async def init_state(
        self, engine_client: EngineClient | None, state: State, args: Namespace
    ) -> None:
        """Find what the front end knows of its ranks."""
        # a server that only renders prompts has no engines
        state.dpbal_ranks = None if engine_client is None else Ranks(self._settings, engine_client)


class Ranks:
    """What a front end knows of its ranks.

    Args:
        settings: What the server does.
        llm: vLLM's own half of the front end.
    """

    def __init__(self, settings: Settings, llm: Any) -> None:
        client = llm.engine_core
        self._llm = llm
        self._names: Sequence[int] = client.engine_ranks_managed
        self._number, self._count = client.client_index, client.client_count
        self._combination = describe(settings, len(self._names))
        # None where vLLM chooses: nobody else looks at the reports, and nothing is in flight
        self._front_end: FrontEnd | None = getattr(client, "front_end", None)
        if self._front_end is not None:
            self._table = self._front_end.dispatchers[0].table
            self._refresh, self._ages_s = self._front_end.observe, self._front_end.ages_s
        else:
            self._table = LoadTable(len(self._names), settings.dispatchers(self._count))
            subscriber = settings.transport.subscriber(address(REPORTS), self._table)
            self._refresh, self._ages_s = subscriber.refresh, subscriber.ages_s

    def look(self) -> dict[str, Any]:
        """All of it, after a look at the newest reports; numbers that nobody knows are null."""
        is_open = not self._llm.errored
        if is_open:
            self._refresh()
        ages_s = self._ages_s()
        ranks = [self._rank(rank, ages_s) for rank in range(self._table.ranks)]
        return {
            "version": __version__,
            "combination": self._combination,
            "front_end": self._number,
            "front_ends": self._count,
            "draining": is_draining(self._llm),
            "engines_alive": is_open,
            "ranks": ranks,
        }

    def _rank(self, rank: int, ages_s: np.ndarray) -> dict[str, Any]:
        report = self._table.reports[rank]
        has_reported = report["version"] > 0
        known = {name: report[name].item() if has_reported else None for name in REPORTED}
        age_s = ages_s.item(rank) if has_reported else None
        dispatchers = self._front_end.dispatchers if self._front_end is not None else ()
        counts = self._front_end.counts if self._front_end is not None else None
        sent = {
            "in_flight_requests": sum(d.ledger.in_flight.requests.item(rank) for d in dispatchers),
            "in_flight_tokens": sum(d.ledger.in_flight.tokens.item(rank) for d in dispatchers),
            "outstanding": sum(d.ledger.outstanding.item(rank) for d in dispatchers),
        }
        has_work = bool(known["running"] or known["waiting"] or sent["outstanding"])
        if not self._table.present.item(rank):
            state = "gone"
        elif age_s is None:
            state = "no report yet"
        elif has_work and age_s > STALLED_S:
            state = "stalled"
        else:
            state = "ready"
        return {
            "rank": self._names[rank],
            "state": state,
            "report_age_s": age_s,
            **known,
            **(sent if self._front_end is not None else dict.fromkeys(sent)),
            "dispatched": None if counts is None else counts.choices[rank] + counts.pins[rank],
        }


async def health(request: Request) -> JSONResponse:
    """200 where all ranks are ready and new requests are taken, 503 elsewhere."""
    ranks: Ranks | None = request.app.state.dpbal_ranks
    if ranks is None:
        return JSONResponse({"detail": "this server has no engines"}, HTTPStatus.NOT_FOUND)
    seen = ranks.look()
    is_ready = (
        seen["engines_alive"]
        and not seen["draining"]
        and all(rank["state"] == "ready" for rank in seen["ranks"])
    )
    return JSONResponse(seen, HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)
