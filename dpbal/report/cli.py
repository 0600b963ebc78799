"""The command ``dpbal-report``; every mistake in its command line is one line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from dpbal.command import Parser, failing_in_one_line
from dpbal.errors import ConfigError, MissingExtraError

PAGE, TRACE = "report.html", "trace.json.gz"
NEEDED = ("jinja2", "matplotlib")


def main(argv: Sequence[str] | None = None) -> None:
    """Write a report on the runs of a folder, or a trace of one run."""
    args = parser().parse_args(argv)
    with failing_in_one_line("dpbal-report"):
        if args.trace is None:
            if args.folder is None:
                raise ConfigError("name a folder of runs: dpbal-report DIR")
            _report(args)
        else:
            _trace(args)


def parser() -> argparse.ArgumentParser:
    """What may be typed."""
    root = Parser(
        prog="dpbal-report",
        description="Writes one HTML file on the runs of a folder, or a trace of one run.",
    )
    root.add_argument(
        "folder", nargs="?", metavar="DIR", help="a run, a multirun, or any folder of runs"
    )
    root.add_argument("--out", metavar="FILE", help=f"default DIR/{PAGE}")
    root.add_argument("--title", metavar="TEXT", help="the page's heading; default: what ran")
    root.add_argument(
        "--baseline",
        metavar="NAME",
        help="what the others are compared with, as dpbal-compare takes it",
    )
    root.add_argument(
        "--trace",
        nargs="?",
        const="",
        metavar="FILE",
        help="write no page, but the steps and requests of one run for ui.perfetto.dev; default "
        f"DIR/{TRACE}",
    )
    return root


def _report(args: argparse.Namespace) -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"there is no {' and no '.join(missing)}; type pip install 'dpbal[report]'"
        )
    from dpbal.report import capacity, contents, page

    folder = Path(args.folder)
    out = _target(args.out, folder, PAGE)
    if folder.is_dir() and capacity.is_search(folder):
        if args.baseline is not None:
            raise ConfigError(
                f"--baseline {args.baseline}: {folder} holds capacity searches, which are compared"
                " with nothing; leave it out"
            )
        searches = capacity.read(folder)
        text = page.render_capacity(folder, searches, args.title)
        what = f"capacity searches: {len(searches)}"
    else:
        found = contents.read(folder, args.baseline)
        text = page.render(found, args.title)
        what = f"{len(found.runs)} run{'s' if len(found.runs) > 1 else ''}"
    out.write_text(text, encoding="utf-8")
    print(f"{out} ({what}, {out.stat().st_size / 1e6:.1f} MB)")


def _trace(args: argparse.Namespace) -> None:
    given = [f"--{name}" for name in ("out", "title", "baseline") if getattr(args, name)]
    if given:
        raise ConfigError(f"--trace writes no page, so there is no {given[0]} for it")
    if args.folder is None and args.trace:  # --trace DIR
        args.folder, args.trace = args.trace, ""
    if args.folder is None:
        raise ConfigError("name a run: dpbal-report DIR --trace")
    from dpbal.comparison.load import find
    from dpbal.report.trace import export

    folder = Path(args.folder)
    runs = find([folder]).runs
    if len(runs) > 1:
        names = ", ".join(str(run.directory) for run in runs[:3])
        more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
        raise ConfigError(f"a trace is of one run; {folder} holds {names}{more}: name one of them")
    out = _target(args.trace, folder, TRACE)
    export(runs[0], out)
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB); open it in ui.perfetto.dev")


def _target(given: str | None, folder: Path, name: str) -> Path:
    """Where a file goes, which is refused before any work is done."""
    out = Path(given) if given else (folder if folder.is_dir() else folder.parent) / name
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; name a file, such as {out / name}")
    if not out.absolute().parent.is_dir() and given:
        raise ConfigError(f"{out}: there is no folder {out.parent}")
    return out
