"""A plan in words: what is served how, what dpbal changes in vLLM, and the same without it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dpbal.backends.vllm.combination import signal
from dpbal.backends.vllm.serve.herding import advice
from dpbal.backends.vllm.settings import CONFIG

if TYPE_CHECKING:
    from dpbal.backends.vllm.serve.plan import Plan

FILE = "dpbal.yaml"

PROFILE = "llama31_8b_h100"
"""For example."""


def warnings(plan: Plan) -> Iterator[str]:
    """What is allowed, and may not be what was meant."""
    if plan.counts_guessed_seconds:
        profile = plan.settings.config.profile
        model = f"{profile.get('model', 'a model')} on {profile.get('device', 'a device')}"
        yield (
            f"warning: seconds are those of {model}; type profile=NAME for the model that is "
            f"served, such as profile={PROFILE}, or make one with dpbal-calibrate"
        )
    instead = advice(plan.settings.config, plan.front_ends)
    if instead is not None:
        yield (
            f"warning: {plan.front_ends} API servers do not know of each other, and each finds the "
            f"same rank free; type {instead}"
        )


def describe(plan: Plan) -> Iterator[str]:
    """The lines that ``--dry-run`` prints."""
    yield f"dpbal-serve would start {plan.args.model}, and has not."
    yield ""
    yield from _rows("The combination", _combination(plan))
    yield ""
    yield from _rows("What it changes in vLLM", _changes(plan))
    yield ""
    yield "The same without dpbal-serve:"
    yield f"  {_writing(plan)} > {FILE}"
    yield f"  {CONFIG}={FILE} vllm serve {shlex.join(plan.words)}"
    yield "Without dpbal:"
    yield f"  vllm serve {shlex.join(plan.words)}"


def _rows(title: str, rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    yield f"{title}:"
    for name, value in rows:
        yield f"  {name:<12} {value}"


def _combination(plan: Plan) -> Iterator[tuple[str, str]]:
    settings, config = plan.settings, plan.settings.config
    parallel = plan.vllm_config.parallel_config
    is_native, indexer = settings.is_native, settings.indexer
    yield "balancer", config.balancer["name"] + (" (vLLM chooses)" if is_native else "")
    if not is_native:
        yield "signal", signal(settings)
        yield "indexer", config.indexer["name"] if indexer is not None else "not asked for"
        yield "ledger", config.ledger.mode.name
    yield "transport", config.transport["name"]
    yield "budget", config.budget["name"]
    profile = config.profile
    is_read = plan.is_emulated or settings.reads_profile
    yield "profile", f"{profile.get('model')}, {profile.get('device')}" if is_read else "not read"
    group = f"{plan.ranks} {config.group.kind.name} ranks"
    if plan.has_other_hosts:
        group += f", {parallel.data_parallel_size_local} of them on this host"
    elif parallel.data_parallel_hybrid_lb:
        group += f" of this host, of {parallel.data_parallel_size} in all"
    yield "group", group
    servers = plan.front_ends
    yield "API servers", f"{servers}, each a dispatcher" if servers else "none on this host"
    yield "GPUs", "emulated" if plan.is_emulated else "vLLM's own"


def _changes(plan: Plan) -> Iterator[tuple[str, str]]:
    settings, config = plan.settings, plan.settings.config
    transport = config.transport["name"]
    if settings.is_native:
        yield "front ends", "nothing: vLLM chooses the rank"
    else:
        yield "front ends", f"{config.balancer['name']} chooses the rank of each request"
        yield "requests", "carry the trace header x-dpbal-dispatch, which their engine takes off"
    scheduler = plan.scheduler
    yield "engines", f"{scheduler.__name__}: vLLM's scheduler, which reports after each step"
    yield "reports", f"travel by {transport}; what that makes on the host goes at the end"
    if settings.needs_events:
        yield "KV events", "on; front ends follow the prefix caches over sockets of this host"
    else:
        yield "KV events", "as without dpbal"
    if settings.limits_prefill:
        yield "prefill", f"of each step limited by budget {config.budget['name']}"
    else:
        yield "prefill", "as without dpbal"
    if plan.is_emulated:
        lasting, is_async = "last as the profile says", settings.async_scheduling
    else:
        asked = plan.vllm_config.scheduler_config.async_scheduling
        lasting, is_async = "as without dpbal", bool(asked)
    yield "steps", f"{lasting}; async scheduling {'on' if is_async else 'off'}"
    if plan.front_ends:
        has_metrics = not settings.is_native and not plan.args.disable_log_stats
        yield "paths", "/dpbal/health, " + ("dpbal_* in /metrics" if has_metrics else "no metrics")
        yield "its end", "with --shutdown-timeout running requests finish, and new ones get a 503"
    yield "a dead rank", "is named in the log, open requests get an error, and the status is 1"
    yield (
        "the rest",
        "API, aborts, vllm:* metrics, waves, KV cache and weights are vLLM's",
    )


def _writing(plan: Plan) -> str:
    """The command that writes the config."""
    group = plan.settings.config.group
    derived = {"kind": group.kind.name, "ranks": group.ranks, "dispatchers": group.dispatchers}
    is_typed = any(line.lstrip("+") == "backend=vllm" for line in plan.overrides)
    words = [*plan.overrides] if is_typed else ["backend=vllm", *plan.overrides]
    words += [f"group.{key}={value}" for key, value in derived.items() if not plan.is_typed(key)]
    return f"dpbal-run --cfg job {shlex.join(words)}"
