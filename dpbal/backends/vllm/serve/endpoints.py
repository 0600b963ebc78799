"""What a server of vLLM answers beside vLLM's own paths."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from dpbal.backends.vllm.settings import Settings

HEALTH = "/dpbal/health"
"""Path of what a front end knows of its ranks."""


def adding_health(load: Callable[..., list[Any]], settings: Settings) -> Callable[..., list[Any]]:
    """A look for endpoint plug-ins that finds dpbal's as well.

    vLLM finds such plug-ins by their entry points and wants each named in ``VLLM_PLUGINS``, which
    turns off all plug-ins of any kind that it does not name; and wherever one is installed that is
    not named, it warns. So dpbal's has no entry point.
    """

    @wraps(load)
    def load_and_add(*args: Any, **kwargs: Any) -> list[Any]:
        from dpbal.backends.vllm.serve.health import (
            Health,  # engines, which load this too, serve no HTTP
        )

        return [*load(*args, **kwargs), Health(settings)]

    return load_and_add
