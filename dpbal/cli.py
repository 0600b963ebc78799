"""The command ``dpbal-run``: a checked command line, a config, one run or a sweep of them."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dpbal import __version__
from dpbal.composition import check_jobs
from dpbal.config import check, explain
from dpbal.errors import ConfigError, DpbalError, JobFailed
from dpbal.overrides import CONF, normalise
from dpbal.parts import build

if TYPE_CHECKING:
    from argparse import Namespace

    from omegaconf import DictConfig

USAGE = 2
"""Exit code of a command line that cannot run; a run that fails exits with 1."""

NO_MEMORY = (
    "not enough memory for this run; try a smaller group.ranks, group.dispatchers, "
    "backend.max_num_seqs or workload.requests"
)
"""What to say of a run that is too large for the machine."""


def main() -> None:
    """Run what the command line says; every mistake in it is one line on standard error."""
    import hydra
    from hydra.errors import HydraException

    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises, and this function speaks
    try:
        if "--version" in sys.argv[1:]:
            print(f"dpbal {__version__}, Hydra {hydra.__version__}")
            return
        sys.argv[1:] = prepare(sys.argv[1:])
        app = hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(_run_job)
        app()
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except JobFailed:
        sys.exit(1)
    except OSError as error:
        if wants_traceback or error.filename is None:
            raise
        _fail(
            f"cannot use {error.filename}: {error.strerror}; name a directory that can be "
            "written to, with hydra.run.dir=DIR, or hydra.sweep.dir=DIR in a sweep",
            1,
        )
    except (DpbalError, HydraException) as error:
        if wants_traceback:
            raise
        _fail(str(error) if isinstance(error, DpbalError) else explain(error), USAGE)


def prepare(argv: list[str]) -> list[str]:
    """Check a command line before anything runs, and put it in the order and form Hydra takes.

    Raises:
        ConfigError: For anything that does not exist or does not fit.
    """
    from hydra._internal.utils import get_args_parser  # the parser that Hydra itself will use

    args = get_args_parser().parse_intermixed_args(argv)
    flags = [word for word in argv if word not in args.overrides]
    if not _is_introspection(args):
        commands = ("run", "multirun", "cfg")
        given = [f"--{command}" for command in commands if getattr(args, command)]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} exclude each other; give one of them")
        if args.resolve and not args.cfg:
            raise ConfigError("--resolve goes with --cfg; type --cfg job --resolve")
        is_sweep = args.multirun or "hydra.mode=MULTIRUN" in args.overrides
        configs = check_jobs(args.overrides, args.config_dir, is_sweep)
        if not args.cfg:
            for node in {str(config.tracker): config.tracker for config in configs}.values():
                build("tracker", node).check()
    return [*flags, *normalise(args.overrides)]


def _is_introspection(args: Namespace) -> bool:
    """Whether Hydra is asked about itself or about another tree of configs than dpbal's."""
    asks = args.help or args.hydra_help or args.shell_completion or args.info
    return bool(asks or args.config_name or args.config_path or args.experimental_rerun)


def _run_job(cfg: DictConfig) -> None:
    """One job, in its own directory."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    settings = HydraConfig.get()
    in_sweep = settings.mode is RunMode.MULTIRUN
    job = " ".join(settings.overrides.task)
    try:
        config = check(cfg)
        directory = Path(settings.runtime.output_dir)
        if config.capacity is not None:
            from dpbal.capacity.search import find_capacity

            find_capacity(config, directory, show=not in_sweep)
        else:
            from dpbal.experiment import run

            run(config, directory, show=not in_sweep)
    except DpbalError as error:
        if not in_sweep:
            _fail(str(error), 1)
        print(f"dpbal-run: {job}: {error}", file=sys.stderr, flush=True)
        raise JobFailed from None
    except MemoryError:
        if not in_sweep:
            _fail(NO_MEMORY, 1)
        print(f"dpbal-run: {job}: {NO_MEMORY}", file=sys.stderr, flush=True)
        raise JobFailed from None
    except Exception:
        if not in_sweep:
            raise
        print(f"dpbal-run: {job}: a bug\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        raise JobFailed from None


def _fail(message: str, code: int) -> NoReturn:
    print(f"dpbal-run: {message}", file=sys.stderr, flush=True)
    sys.exit(code)
