"""The command ``dpbal-report``; every mistake in its command line is one line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from dpbal.command import Parser, failing_in_one_line
from dpbal.errors import ConfigError, MissingExtraError
from dpbal.report import output

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
    folder = Path(args.folder)
    out = output.target(args.out, folder, PAGE, "--out")
    with output.replacing(out) as file:
        text, what = _page(folder, args)
        # the name of a folder may hold what no encoding has
        size = file.write(text.encode("utf-8", "replace"))
    print(f"{output.printable(out)} ({what}, {size / 1e6:.1f} MB)")


def _page(folder: Path, args: argparse.Namespace) -> tuple[str, str]:
    """The page, and what it is of."""
    from dpbal.report import capacity, contents, page

    if folder.is_dir() and capacity.is_search(folder):
        if args.baseline is not None:
            raise ConfigError(
                f"--baseline {args.baseline}: {folder} holds capacity searches, which are compared"
                " with nothing; leave it out"
            )
        searches = capacity.read(folder)
        text = page.render_capacity(folder, searches, args.title)
        return text, f"capacity searches: {len(searches)}"
    found = contents.read(folder, args.baseline)
    what = f"{len(found.runs)} run{'s' if len(found.runs) > 1 else ''}"
    return page.render(found, args.title), what


def _trace(args: argparse.Namespace) -> None:
    given = [f"--{name}" for name in ("out", "title", "baseline") if getattr(args, name)]
    if given:
        raise ConfigError(f"--trace writes no page, so there is no {given[0]} for it")
    if args.folder is None and args.trace:  # --trace DIR
        args.folder, args.trace = args.trace, ""
    if args.folder is None:
        raise ConfigError("name a run: dpbal-report DIR --trace")
    from dpbal.comparison.grouping import listed
    from dpbal.comparison.load import find
    from dpbal.report.trace import export

    folder = Path(args.folder)
    runs = find([folder]).runs
    if len(runs) > 1:
        names = listed((str(run.directory) for run in runs), 3)
        raise ConfigError(f"a trace is of one run; {folder} holds {names}: name one of them")
    out = output.target(args.trace, folder, TRACE, "--trace")
    export(runs[0], out)
    size = f"{out.stat().st_size / 1e6:.1f} MB"
    print(f"{output.printable(out)} ({size}); open it in ui.perfetto.dev")
