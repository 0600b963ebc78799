"""The command ``dpbal-serve``: a checked command line, and vLLM's own server started by it."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpbal import __version__
from dpbal.backends.vllm.backend import require
from dpbal.backends.vllm.settings import CONFIG
from dpbal.command import Parser, failing_in_one_line
from dpbal.composition import compose
from dpbal.config import Config
from dpbal.errors import ConfigError
from dpbal.transports.sockets import Sockets

if TYPE_CHECKING:
    from dpbal.backends.vllm.serve.plan import Plan

PROG = "dpbal-serve"

SEPARATOR = "--"

SOCKETS = "VLLM_RPC_BASE_PATH"
"""vLLM's variable for the folder of its sockets."""

CANNOT_LISTEN = (errno.EACCES, errno.EADDRINUSE, errno.EADDRNOTAVAIL)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve as the command line says; every mistake in it is one line on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    own, vllms = words, None
    if SEPARATOR in words:
        place = words.index(SEPARATOR)
        own, vllms = words[:place], words[place + 1 :]
    args = parser().parse_intermixed_args(own)
    if args.version:
        print(f"dpbal {__version__}")
        return
    with failing_in_one_line(PROG):
        if not vllms:
            raise ConfigError(
                f"what is to be served? type {PROG} {' '.join(own)} -- MODEL "
                "--data-parallel-size N; what follows -- is vllm serve's"
            )
        _check_environment()
        plan = _plan(args.overrides, vllms, args.dry_run)
        if args.dry_run:
            _show(plan)
            return
        sockets = _prepare(plan)
    _serve(plan, sockets)  # whose errors are no longer those of a command line


def parser() -> argparse.ArgumentParser:
    """What may be typed before ``--``."""
    root = Parser(
        prog=PROG,
        usage=f"{PROG} [OVERRIDE ...] [--dry-run] -- MODEL [vllm serve's arguments]",
        description="vLLM's OpenAI-compatible server, with dpbal's choice of the rank inside.",
        epilog="-- --help shows vllm serve's own arguments",
    )
    root.add_argument(
        "overrides",
        nargs="*",
        metavar="OVERRIDE",
        help="a choice or value as dpbal-run takes it, such as +balancer=minimum_tokens",
    )
    root.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be done, and what it changes in vLLM, and start nothing",
    )
    root.add_argument("--version", action="store_true", help="say which dpbal this is")
    return root


def _check_environment() -> None:
    """Refuse what would take the place of the command line, or dpbal out of vLLM's processes."""
    if os.environ.get(CONFIG):
        raise ConfigError(
            f"{CONFIG} is set, and {PROG} takes its config from the command line; type unset "
            f"{CONFIG}, or start vllm serve itself"
        )
    plugins = os.environ.get("VLLM_PLUGINS")
    if plugins is not None and "dpbal" not in plugins.split(","):
        raise ConfigError(
            f"VLLM_PLUGINS={plugins} leaves dpbal out; add dpbal to it, or unset VLLM_PLUGINS"
        )


def _compose(overrides: Sequence[str]) -> Config:
    """The config, whose backend is real engines."""
    chosen = {line.lstrip("+").partition("=")[0]: line for line in overrides}
    if "backend" not in chosen:
        overrides = ["backend=vllm", *overrides]
    config = compose(*overrides)
    if config.backend["name"] != "vllm":
        raise ConfigError(f"{PROG} runs vLLM's engines; leave out {chosen['backend']}")
    return config


def _plan(overrides: Sequence[str], words: Sequence[str], is_dry_run: bool) -> Plan:
    """What is to be done, with a warning of what may not be what was meant."""
    config = _compose(overrides)
    if is_dry_run:  # vLLM logs to where the answer goes
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    require(PROG)
    from dpbal.backends.vllm.plugin import check_version

    check_version()
    from dpbal.backends.vllm.serve.dry_run import warnings
    from dpbal.backends.vllm.serve.plan import Plan

    plan = Plan.make(config, overrides, words)
    for line in warnings(plan):
        print(f"{PROG}: {line}", file=sys.stderr, flush=True)
    return plan


def _show(plan: Plan) -> None:
    from dpbal.backends.vllm.serve.dry_run import describe

    print("\n".join(describe(plan)))


def _prepare(plan: Plan) -> Sockets:
    """Have vLLM, here and in processes that it starts, do what is planned.

    Returns:
        A folder for vLLM's sockets, of which it leaves those of killed engines.
    """
    from dpbal.backends.vllm.plugin import register

    base = os.environ.get(SOCKETS, tempfile.gettempdir())
    sockets = Sockets.create(Path(base), "vllm")
    os.environ[SOCKETS] = sockets.address
    os.environ[CONFIG] = plan.settings.to_environment()
    register()
    return sockets


def _serve(plan: Plan, sockets: Sockets) -> None:
    from vllm.entrypoints.cli.serve import ServeSubcommand

    try:
        ServeSubcommand.cmd(plan.args)
    except OSError as error:
        if error.errno not in CANNOT_LISTEN:
            raise
        with failing_in_one_line(PROG):
            raise ConfigError(
                f"cannot listen on {plan.args.host or '0.0.0.0'}:{plan.args.port}: "
                f"{error.strerror}; type --host HOST --port N after --"
            ) from None
    finally:
        sockets.close()
