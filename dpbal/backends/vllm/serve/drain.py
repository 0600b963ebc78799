"""The end of a server that lets its running requests finish, as ``--shutdown-timeout`` asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from vllm.exceptions import GracefulHTTPError
from vllm.logger import init_logger

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

LOG = init_logger(f"vllm.{__name__}")  # vLLM shows what is below its own name

Method = Callable[..., Any]

LOOK_S = 0.05
"""Between two looks at what is left; a request between two of vLLM's hands is seen by one."""

MARGIN_S = 1.0
"""Left of the given time for errors to leave: vLLM kills an API server beside others at its end."""


class Draining(GracefulHTTPError):
    """A new request for a server that is about to end."""

    def __init__(self) -> None:
        super().__init__(
            "This server is shutting down and takes no new requests. "
            "Please try again on a different instance.",
            HTTPStatus.SERVICE_UNAVAILABLE,
        )


def is_draining(llm: AsyncLLM) -> bool:
    """Whether a front end takes no new requests any more."""
    return getattr(llm, "dpbal_is_draining", False)


def draining(shut_down: Method) -> Method:
    """A shutdown of a front end that first waits for its own requests, if it was given time.

    vLLM tells its engines to finish what they have, but closes the sockets of an API server beside
    others at once, and those of a single one as soon as the engines have ended, whether or not all
    of their answers have arrived. Here engines are told nothing before the last answer is there.
    """

    @wraps(shut_down)
    def finish_and_shut_down(self: Any, timeout: float | None = None) -> None:
        # vLLM calls it twice, and the second time from the loop that the answers come through
        if not is_draining(self):
            self.dpbal_is_draining = True
            if timeout and not _is_in_its_loop():
                deadline_s = time.monotonic() + timeout
                _finish(self, deadline_s - min(MARGIN_S, timeout / 4))
                timeout = max(0.0, deadline_s - time.monotonic())
        shut_down(self, timeout=timeout)

    return finish_and_shut_down


def refusing(check_admission: Method) -> Method:
    """An admission that lets no request into a server that is about to end."""

    @wraps(check_admission)
    def check_admission_and_end(self: AsyncLLM, *args: Any, **kwargs: Any) -> None:
        if is_draining(self) and not self.errored:
            raise Draining
        check_admission(self, *args, **kwargs)

    return check_admission_and_end


def _is_in_its_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _finish(llm: AsyncLLM, deadline_s: float) -> None:
    """Wait until a front end has no request left, twice in a row, or may not wait any longer."""
    left = llm.get_num_unfinished_requests()
    LOG.info("dpbal: finishing %d running requests; new ones get a 503", left)
    was_empty = False
    while not (was_empty and left == 0):
        if llm.errored or time.monotonic() >= deadline_s:
            LOG.warning("dpbal: %d requests did not finish in time", left)
            return
        was_empty = left == 0
        time.sleep(LOOK_S)
        left = llm.get_num_unfinished_requests()
    LOG.info("dpbal: all requests have finished")
