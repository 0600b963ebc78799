"""A random participant of a serving group is killed at a random time, a hundred times a transport.

    python -m experiments.faults.run                              # all transports, 100 runs each
    python -m experiments.faults.run --runs 10 --transport shm    # one, quickly

In a run three ranks, two dispatchers and the owner of their exchange, each a process, serve
requests. One of them gets a SIGKILL; a rank or a dispatcher is started again in half of the runs.
The seed of a run says who, when, and how much is sent; how the processes are timed is the host's.
Each run goes into TRANSPORT.csv as it ends, and what is there is not run again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import polars

from experiments.faults.scene import DISPATCHERS, RANKS, play
from tests.transports.groups import CASES, Case

HERE = Path(__file__).parent


def complete(case: Case, seeds: range, file: Path) -> polars.DataFrame:
    """Do the runs that a file lacks, and write it after each."""
    rows = polars.read_csv(file).to_dicts() if file.exists() else []
    done = {row["seed"] for row in rows}
    for seed in seeds:
        if seed in done:
            continue
        rows.append(play(case, seed))
        polars.DataFrame(rows, infer_schema_length=None).write_csv(file)
        if not rows[-1]["is_good"]:
            print(f"{case.name}: {rows[-1]}", flush=True)
    return polars.DataFrame(rows, infer_schema_length=None).sort("seed")


def table(runs: dict[str, polars.DataFrame]) -> str:
    """Markdown: what was left, charged or chosen wrongly, and how long survivors waited."""
    lines = [
        "| transport | runs | victims: rank / dispatcher / owner | started again "
        "| something left | in flight not zero | dead rank chosen | good "
        "| longest wait of a survivor, s: p50 / max | choices after the kill, fewest |",
        "|---" * 10 + "|",
    ]
    for name, own in runs.items():
        kinds = own["victim"].str.split(" ").list.first()
        victims = " / ".join(str((kinds == k).sum()) for k in ("rank", "dispatcher", "owner"))
        charged = (own["in_flight"] + own["outstanding"]) > 0
        waits_s = own["longest_wait_s"].to_list()
        cells = [
            name,
            len(own),
            victims,
            own["restarted"].sum(),
            (own["left"].fill_null("") != "").sum(),
            charged.sum(),
            (own["dead_rank_chosen"] > 0).sum(),
            own["is_good"].sum(),
            f"{np.median(waits_s):.3f} / {max(waits_s):.3f}",
            own["fewest_choices_after"].min(),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    total = sum(own["requests"].sum() for own in runs.values())
    refused = sum(own["refused"].sum() for own in runs.values())
    lines.append(
        f"\n{RANKS} ranks, {DISPATCHERS} dispatchers and an owner in each run. A run is good where "
        "nothing was left when all had ended and one exchange more had been made: no process, no "
        "shared memory, no file; where in flight and outstanding of every dispatcher that lived on "
        "returned to zero, and it went on choosing; and where no rank that stayed dead was chosen "
        f"after {', '.join(f'{case.gone_s:g} s ({case.name})' for case in CASES)}. "
        f"{total:,} requests were sent; {refused:,} of them to a rank that was dead and not yet "
        "known to be."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Do what is not done yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=100, help="of each transport")
    parser.add_argument("--transport", help="names, with commas between them; all unless given")
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    cases = {case.name: case for case in CASES}
    names = args.transport.split(",") if args.transport else list(cases)
    for name in names:
        if name not in cases:
            parser.error(f"no transport {name}; there are {', '.join(cases)}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        began_s = time.monotonic()
        seeds = range(args.seed, args.seed + args.runs)
        runs = complete(cases[name], seeds, args.out / f"{name}.csv")
        good, took_s = runs["is_good"].sum(), time.monotonic() - began_s
        print(f"{name}: {good} of {len(runs)} runs good, {took_s:.0f} s", flush=True)
    files = {name: args.out / f"{name}.csv" for name in cases}
    found = {name: polars.read_csv(file) for name, file in files.items() if file.exists()}
    (args.out / "results.md").write_text(table(found))


if __name__ == "__main__":
    main()
