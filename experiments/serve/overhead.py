"""What dpbal costs a server: vLLM's own against dpbal's, on the same requests, in turns.

    python -m experiments.serve.overhead                   # 14 minutes on 2 cores
    python -m experiments.serve.overhead --rounds 1 --passes 1 --idle-s 10    # quickly
    python -m experiments.serve.overhead --executor cpu --ranks 2              # nothing emulated

Three servers run side by side in each round, each started anew, so that no two rounds share what
a process happens to be given: vLLM without dpbal, dpbal whose ranks report while vLLM chooses, and
dpbal that chooses. All are left alone for 20 s, in which their processor time is that of an idle
server that nobody scrapes; then one after the other is asked, in the order A B C C B A four times,
and the others are idle. The order of A, B and C is another one in each round. An asking is an open
loop at 0.7 of the rate that vLLM alone came to in a closed loop, and a closed loop of 64 requests
at once.

Prompts are of 32 letters and answers of 8 tokens, streamed, and emulated steps take 10 ms, so that
the one front-end process has more to do than an engine. The server without dpbal has the same
emulated GPUs, whose executor reads a config of the same profile; ``VLLM_PLUGINS=`` keeps all else
of dpbal's out of it, which is checked: it has no shared memory of dpbal's. dpbal forks emulated
engines where vLLM spawns them; no start is timed. Rows go into overhead.csv and idle.csv.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import polars

from experiments.serve import report
from experiments.serve.observe import cpu_s, load, machine_s
from experiments.serve.requests import Became, Wanted, closed_loop, open_loop
from experiments.serve.servers import Executor, Server, Spec, serving

ARMS: dict[str, tuple[str, ...] | None] = {
    "vllm": None,
    "reports": ("balancer=vllm_native",),
    "minimum_tokens": ("balancer=minimum_tokens",),
}
STEPS = (
    "profile=llama31_8b_h100",
    "profile.fixed_s=0.01",
    "profile.prefill_s_per_token=1e-6",
    "profile.decode_s_per_seq=1e-6",
)
WANTED = Wanted("the same words to every server..", 8)
SHARE = 0.7
AT_ONCE = 64
FRONT = ("main", "APIServer")
"""Kinds of processes that are the front end."""


def ask(server: Server, kind: str, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    """An open or a closed loop, and what it cost."""
    before, busy_s, own_s = cpu_s(server), machine_s(), sum(os.times()[:2])
    began_s = time.monotonic()
    if kind == "open":
        count = int(rate * seconds)
        sending = open_loop(
            server.url, itertools.repeat(WANTED), rate, lambda sent, _: sent < count, seed
        )
    else:
        sending = closed_loop(server.url, [WANTED] * int(rate / SHARE * seconds), AT_ONCE)
    done: list[Became] = asyncio.run(sending)
    took_s = time.monotonic() - began_s
    after = cpu_s(server)
    used_s = {name: after[name] - before.get(name, 0.0) for name in after}
    others_s = machine_s() - busy_s - sum(used_s.values()) - (sum(os.times()[:2]) - own_s)
    finished = [became for became in done if became.end == "finished"]
    ttft_ms = [1e3 * became.ttft_s for became in finished if became.ttft_s is not None]
    per_request = 1e3 / max(1, len(finished))
    return {
        "kind": kind,
        "requests": len(done),
        "failed": len(done) - len(finished),
        "took_s": took_s,
        "requests_per_s": len(finished) / took_s,
        "ttft_mean_ms": float(np.mean(ttft_ms)),
        "ttft_p50_ms": float(np.median(ttft_ms)),
        "ttft_p99_ms": float(np.quantile(ttft_ms, 0.99)),
        "e2e_mean_ms": 1e3 * float(np.mean([became.took_s for became in finished])),
        "front_cpu_ms": per_request * sum(used_s.get(name, 0.0) for name in FRONT),
        "cpu_ms": per_request * sum(used_s.values()),
        "front_cores": sum(used_s.get(name, 0.0) for name in FRONT) / took_s,
        "others_cores": others_s / took_s,
        **load(),
    }


def idle(servers: dict[str, Server], seconds: float) -> list[dict[str, Any]]:
    """Leave all servers alone, and return what share of a core each took, in percent."""
    before, busy_s = {arm: cpu_s(server) for arm, server in servers.items()}, machine_s()
    began_s = time.monotonic()
    time.sleep(seconds)
    took_s = time.monotonic() - began_s
    others_s = machine_s() - busy_s
    rows = []
    for arm, server in servers.items():
        used_s = {name: s - before[arm].get(name, 0.0) for name, s in cpu_s(server).items()}
        others_s -= sum(used_s.values())
        front_s = sum(used_s.get(name, 0.0) for name in FRONT)
        rows.append(
            {
                "arm": arm,
                "core_percent": 100 * sum(used_s.values()) / took_s,
                "front_percent": 100 * front_s / took_s,
                "engines_percent": 100 * used_s.get("EngineCore", 0.0) / took_s,
                "seconds": took_s,
            }
        )
    return [{**row, "others_cores": others_s / took_s, **load()} for row in rows]


def rounds(
    count: int, passes: int, seconds: float, idle_s: float, rate: float | None, base: dict[str, Any]
) -> Iterable[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Rows of each round: those of the askings, and those of the idle servers."""
    for number in range(count):
        names = list(ARMS)
        names = names[number % len(names) :] + names[: number % len(names)]
        with ExitStack() as started:
            servers = {
                arm: started.enter_context(serving(Spec(ARMS[arm], **base))) for arm in names
            }
            for server in servers.values():  # what is compiled or cached at first
                ask(server, "closed", 50.0, 2.0, 0)
            if rate is None:
                plain = ask(servers["vllm"], "closed", 100.0, 4.0, 0)
                rate = SHARE * plain["requests_per_s"]
                print(f"{rate:.0f} requests per second in the open loop", flush=True)
            head = {"executor": base["executor"].name, "ranks": base["ranks"], "round": number}
            resting = [{**head, **row} for row in idle(servers, idle_s)]
            asked = []
            for visit, order in enumerate([names, names[::-1]] * passes):
                for arm, kind in itertools.product(order, ("open", "closed")):
                    row = ask(servers[arm], kind, rate, seconds, 100 * number + visit)
                    asked.append({**head, "visit": visit, "arm": arm, "rate": rate, **row})
            for server in servers.values():
                server.stop()
        yield asked, resting


def main() -> None:
    """Run all rounds; rows are written after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4, help="each with servers of its own")
    parser.add_argument("--passes", type=int, default=4, help="of A B C C B A in a round")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each loop")
    parser.add_argument("--idle-s", type=float, default=20.0, help="seconds of rest in a round")
    parser.add_argument("--rate", type=float, help="requests per second; measured unless given")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--executor", choices=[kind.name for kind in Executor], default="emulated")
    parser.add_argument("--out", type=Path, default=report.HERE)
    args = parser.parse_args()
    base = {"ranks": args.ranks, "executor": Executor[args.executor], "profile": STEPS}
    args.out.mkdir(parents=True, exist_ok=True)
    suffix = "" if args.executor == "emulated" else f"_{args.executor}"
    files = [args.out / f"{name}{suffix}.csv" for name in ("overhead", "idle")]
    kept: list[list[dict[str, Any]]] = [[], []]
    for rows in rounds(args.rounds, args.passes, args.seconds, args.idle_s, args.rate, base):
        for held, new, file in zip(kept, rows, files, strict=True):
            held += new
            polars.DataFrame(held, infer_schema_length=None).write_csv(file)
    report.write(args.out)


if __name__ == "__main__":
    main()
