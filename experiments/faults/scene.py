"""One run: a group serves requests, one of its processes is killed, and all is looked at."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from experiments.faults.participants import QUIET, STOP, tell
from tests.transports.conftest import left_by
from tests.transports.groups import Case
from tests.transports.processes import Process

RANKS, DISPATCHERS = 3, 2

OWNER = "owner"
PARTICIPANTS = "experiments.faults.participants"

KILL_S = (0.0, 0.3)
"""When the victim is killed, in seconds after the start; drawn uniformly."""

RESTART_S = (0.0, 0.2)
"""How long after that it is started again, where it is."""

AFTER_S = 0.3
"""How long traffic goes on at least after the last of what was to happen."""


@dataclass(frozen=True)
class Plan:
    """What happens in a run, which its seed says.

    Attributes:
        victim: ``rank 0``, ``dispatcher 1``, ``owner`` and so on.
        kill_s: When it is killed.
        restart_s: How long after that it is started again; None for never.
        seed: Of what dispatchers send.
    """

    victim: str
    kill_s: float
    restart_s: float | None
    seed: int

    @classmethod
    def draw(cls, seed: int, case: Case) -> Plan:
        """A plan; a rank that could not join the others again stays dead, and so does an owner."""
        draws = random.Random(f"plan {seed}")
        ranks = [f"rank {k}" for k in range(RANKS)]
        dispatchers = [f"dispatcher {k}" for k in range(DISPATCHERS)]
        victim = draws.choice([*ranks, *dispatchers, OWNER])
        kill_s, restart_s = draws.uniform(*KILL_S), draws.uniform(*RESTART_S)
        may_restart = victim in dispatchers or (victim in ranks and case.outlives_rank)
        restarts = draws.random() < 0.5 and may_restart
        return cls(victim, kill_s, restart_s if restarts else None, seed)


class Scene:
    """The processes of a run.

    Args:
        case: How they exchange reports.
        folder: For their sockets and whatever else they make.
        plan: What happens.
    """

    def __init__(self, case: Case, folder: Path, plan: Plan) -> None:
        """Start them all, and let ranks and dispatchers serve."""
        self._case, self._folder, self._plan = case, folder, plan
        self.all: list[Process] = []
        owner = self._process(f"from {PARTICIPANTS} import Rank, FrontEnd")
        owner.do(f"x = t.create({RANKS}, {DISPATCHERS})")
        self._address: str = owner.do("x.address")
        self._living = {OWNER: owner}
        for number in range(RANKS):
            self._start(f"rank {number}")
        for number in range(DISPATCHERS):
            self._start(f"dispatcher {number}")
        for name in self._serving:
            self._begin(name)

    @property
    def _serving(self) -> list[str]:
        return [name for name in self._living if name != OWNER]

    def run(self) -> dict[str, Any]:
        """All of it; what came of it, as a row of the table."""
        plan = self._plan
        time.sleep(plan.kill_s)
        victim = self._living.pop(plan.victim)
        victim.end(signal.SIGKILL)
        killed_s = time.monotonic()
        survivors = set(self._serving)
        if plan.restart_s is not None:
            time.sleep(plan.restart_s)
            self._start(plan.victim)
            self._begin(plan.victim)
        stays_dead = "rank" in plan.victim and plan.restart_s is None
        gone_s = killed_s + self._case.gone_s
        time.sleep(max(0.0, gone_s - time.monotonic()) * stays_dead + AFTER_S)
        tell(self._folder / QUIET, killed_s)
        ends = {n: self._living[n].answer() for n in self._serving if "dispatcher" in n}
        tell(self._folder / STOP, killed_s)
        steps = {n: self._living[n].answer() for n in self._serving if "rank" in n}
        beats = {n: end["looked_s"] for n, end in ends.items()} | steps
        after = {n: [t for t in beats[n] if t > killed_s] for n in survivors}
        dead = int(plan.victim.split()[1]) if stays_dead else None
        return {
            "victim": plan.victim,
            "killed_after_s": round(plan.kill_s, 3),
            "restarted": plan.restart_s is not None,
            "fewest_turns_after": min(map(len, after.values())),
            "longest_wait_s": round(
                max(b - a for n in survivors for a, b in pairwise([killed_s, *after[n]])), 3
            ),
            "fewest_choices_after": min(
                sum(t > killed_s for t, _ in ends[n]["chosen"]) for n in survivors & set(ends)
            ),
            "reports_after": sum(t > killed_s for n in ends for t in ends[n]["heard_s"]),
            "dead_rank_chosen": sum(
                rank == dead and t > gone_s for n in ends for t, rank in ends[n]["chosen"]
            ),
            "requests": sum(end["requests"] for end in ends.values()),
            "refused": sum(end["refused"] for end in ends.values()),
            "in_flight": sum(map(abs, (x for e in ends.values() for x in e["in_flight"]))),
            "outstanding": sum(map(abs, (x for e in ends.values() for x in e["outstanding"]))),
        }

    def end(self) -> list[str]:
        """Let everybody end, and make and remove one exchange more; what is left then."""
        living = list(self._living.values())
        if OWNER in self._living:
            self._living[OWNER].do("x.close()")
        for process in living:
            process.leave()
        codes = [process.end() for process in living]
        next_ = self._process("t.create(1, 1).close()")
        codes.append(next_.end())
        left = [f"exit code {code}" for code in codes if code]
        left += [f"process {pid} of {p.pid}" for p in self.all for pid in p.left_running()]
        left += left_by(*(process.pid for process in self.all))
        own = {QUIET, STOP, *(f"rank{number}" for number in range(RANKS))}
        left += sorted({path.name for path in self._folder.iterdir()} - own)
        return left

    def _start(self, name: str) -> None:
        kind, number = name.split()
        process = self._process(f"from {PARTICIPANTS} import Rank, FrontEnd")
        self._living[name] = process
        if kind == "rank":
            publisher = f"t.publisher({self._address!r}, {number})"
            process.do(f"thing = Rank({publisher}, {str(self._folder)!r}, {number})")
        else:
            seed = self._plan.seed * DISPATCHERS + int(number)
            shape = (RANKS, DISPATCHERS)
            process.do(
                f"thing = FrontEnd(t, {self._address!r}, {str(self._folder)!r}, {number}, "
                f"{shape}, {seed})"
            )

    def _begin(self, name: str) -> None:
        self._living[name].tell("thing.serve()" if "rank" in name else "thing.run()")

    def _process(self, code: str) -> Process:
        process = self._case.process(code, (PARTICIPANTS,))
        self.all.append(process)
        return process


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder that processes started meanwhile take for the host's temporary one."""
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, ExitStack() as stack:
        os.environ["TMPDIR"] = folder
        stack.callback(os.environ.pop, "TMPDIR")
        if before is not None:
            stack.callback(os.environ.__setitem__, "TMPDIR", before)
        yield Path(folder)


def play(case: Case, seed: int) -> dict[str, Any]:
    """One run; its row."""
    began_s = time.monotonic()
    with _own_folder() as folder:
        scene = Scene(case, folder, Plan.draw(seed, case))
        try:
            row = scene.run()
            left = scene.end()
        finally:
            for process in scene.all:
                process.end(signal.SIGKILL)
    row = {"transport": case.name, "seed": seed, **row, "left": " ".join(left)}
    return row | {"is_good": is_good(row), "took_s": round(time.monotonic() - began_s, 2)}


def is_good(row: dict[str, Any]) -> bool:
    """Whether a run ended as it should."""
    return (
        not row["left"]
        and row["in_flight"] == row["outstanding"] == row["dead_rank_chosen"] == 0
        and row["fewest_choices_after"] > 0
        and row["fewest_turns_after"] > 0
    )
