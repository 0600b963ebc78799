"""Clients that others wrote, 500 requests each, against a server with dpbal: none may fail.

    python -m experiments.serve.clients                  # 3 minutes on 2 cores
    python -m experiments.serve.clients --requests 50    # quickly

Four emulated ranks of a dense model (independent) and of a mixture of experts (lockstep).
``vllm bench serve`` streams and can do nothing else, so answers in one piece are asked for by the
``openai`` Python client, by turns as completions and as chats, a bounded number at once.
Afterwards nothing may be held: by what ``/metrics`` says, and by what the ranks report; and the
last number that ranks have acknowledged must be that of the requests sent. Rows go into
clients.csv, and the exit status is 1 if a request failed, or if anything was held or left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars

from experiments.serve import report
from experiments.serve.observe import Reports, drained, health, load
from experiments.serve.servers import NAME, Server, Spec, serving

RATE = 20.0
"""Requests per second of ``vllm bench serve``."""

AT_ONCE = 32
INPUT, OUTPUT = 64, 32
"""Tokens of a request."""

PROFILES = {False: "profile=llama31_8b_h100", True: "profile=deepseek_v3_h200"}


def bench(server: Server, requests: int) -> dict[str, Any]:
    """Let vLLM's own client stream, and return what it says."""
    with TemporaryDirectory() as folder:
        return _bench(server, requests, Path(folder))


def _bench(server: Server, requests: int, folder: Path) -> dict[str, Any]:
    programs = Path(sys.executable).parent
    command = (
        *(str(programs / "vllm"), "bench", "serve", "--backend", "openai"),
        *("--base-url", server.url, "--model", NAME, "--tokenizer", str(server.folder)),
        *("--dataset-name", "random", "--random-input-len", str(INPUT)),
        *("--random-output-len", str(OUTPUT), "--num-prompts", str(requests)),
        *("--request-rate", str(RATE), "--temperature", "0", "--ignore-eos", "--disable-tqdm"),
        *("--save-result", "--result-dir", str(folder), "--result-filename", "bench.json"),
    )
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_PLUGINS": ""}
    ran = subprocess.run(
        command, env={**os.environ, **quiet}, cwd=folder, capture_output=True, text=True
    )
    if ran.returncode:
        raise RuntimeError(f"vllm bench serve ended with {ran.returncode}: {ran.stderr[-2000:]}")
    said = json.loads((folder / "bench.json").read_text())
    return {
        "client": "vllm bench serve",
        "streams": True,
        "completed": said["completed"],
        "failed": said["failed"],
        "errors": "",
        "took_s": said["duration"],
        "output_tokens": said["total_output_tokens"],
        "ttft_p50_ms": said["median_ttft_ms"],
        "ttft_p99_ms": said["p99_ttft_ms"],
    }


def openai(server: Server, requests: int) -> dict[str, Any]:
    """Let the openai client ask for whole answers."""
    began_s = time.monotonic()
    tokens, errors = asyncio.run(_openai(server.url, requests))
    return {
        "client": "openai",
        "streams": False,
        "completed": len(tokens),
        "failed": errors.total(),
        "errors": ", ".join(f"{count} {name}" for name, count in errors.items()),
        "took_s": time.monotonic() - began_s,
        "output_tokens": sum(tokens),
    }


async def _openai(url: str, requests: int) -> tuple[list[int], Counter[str]]:
    from openai import AsyncOpenAI, OpenAIError

    errors: Counter[str] = Counter()
    tokens: list[int] = []
    numbers = iter(range(requests))
    # it would try again by itself, and hide what failed
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

        async def ask(number: int) -> int:
            text = f"request {number} ".ljust(INPUT, ".")
            how: dict[str, Any] = {"max_tokens": OUTPUT, "extra_body": {"ignore_eos": True}}
            if number % 2:
                chat = [{"role": "user", "content": text}]
                said: Any = await client.chat.completions.create(
                    model=NAME,
                    messages=chat,  # type: ignore[arg-type]
                    **how,
                )
            else:
                said = await client.completions.create(model=NAME, prompt=text, **how)
            return int(said.usage.completion_tokens)

        async def one_after_the_other() -> None:
            for number in numbers:
                try:
                    tokens.append(await ask(number))
                except OpenAIError as error:
                    errors[type(error).__name__] += 1

        await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
    return tokens, errors


def run(is_moe: bool, balancer: str, api_servers: int, requests: int) -> list[dict[str, Any]]:
    """Both clients against a server of its own."""
    spec = Spec((balancer,), is_moe, api_servers=api_servers, profile=(PROFILES[is_moe],))
    rows = []
    with serving(spec) as server:
        reports = Reports(server)
        for client in (bench, openai):
            before = reports.look()["acknowledged"]
            row = {
                "group": "lockstep" if is_moe else "independent",
                "api_servers": api_servers,
                "balancer": balancer,
                "requests": requests,
                **client(server, requests),
            }
            held = drained(server, reports)
            row |= {
                "acknowledged": reports.look()["acknowledged"] - before,
                "held": json.dumps(held),
                "health": health(server),
                **load(),
            }
            print(row, flush=True)
            rows.append(row)
        reports.close()
        status, left = server.stop(), server.left()
    return [{**row, "exit_status": status, "left": json.dumps(left)} for row in rows]


def main() -> None:
    """Run all cases, and write what came of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=500, help="of each client")
    parser.add_argument("--api-servers", type=int, default=4, help="front-end processes")
    parser.add_argument("--balancer", default="balancer=least_prefill", help="an override")
    parser.add_argument("--out", type=Path, default=report.HERE)
    args = parser.parse_args()
    rows = []
    for is_moe in (False, True):
        rows += run(is_moe, args.balancer, args.api_servers, args.requests)
    args.out.mkdir(parents=True, exist_ok=True)
    polars.DataFrame(rows, infer_schema_length=None).write_csv(args.out / "clients.csv")
    report.write(args.out)
    bad = [row for row in rows if row["failed"] or any(json.loads(row["held"]).values())]
    if bad or any(row["exit_status"] or json.loads(row["left"]) for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
