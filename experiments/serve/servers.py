"""Servers as these studies start them: dpbal's, and vLLM's own with the same emulated GPUs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from omegaconf import OmegaConf

from dpbal.backends.vllm.emulated import EXECUTOR, model
from dpbal.backends.vllm.settings import CONFIG
from dpbal.composition import compose
from dpbal.config import to_dict
from tests.vllm.place import Place

COMMAND = "dpbal-serve"
NAME = "tiny"
LENGTH = 4096
"""Most tokens of a request."""

CAPACITY = "backend.kv_capacity_tokens=200_000"
STOP_S = 120.0
"""How long a server may take to stop before it is said not to have."""


class Executor(Enum):
    """What runs the model's steps."""

    emulated = "emulated"
    cpu = "cpu"


@dataclass(frozen=True)
class Spec:
    """What is served.

    Attributes:
        overrides: Of dpbal's config, the balancer among them; None for vLLM without dpbal.
        is_moe: A mixture of experts, whose ranks step in lockstep.
        ranks: Number of engines.
        api_servers: Number of front-end processes.
        executor: What runs the steps.
        profile: Overrides of the emulated GPUs' config, the same with and without dpbal.
        arguments: More of ``vllm serve``.
    """

    overrides: tuple[str, ...] | None
    is_moe: bool = False
    ranks: int = 4
    api_servers: int = 1
    executor: Executor = Executor.emulated
    profile: tuple[str, ...] = ("profile=llama31_8b_h100",)
    arguments: tuple[str, ...] = ()


@dataclass
class Server:
    """A server that answers, until it is stopped.

    Attributes:
        spec: What it is.
        place: Its processes and files.
        process: The one that was started.
        url: Where it listens.
        log: What it said.
        folder: The model's, with the tokenizer.
        start_s: How long it took to answer.
        before: Files that were there before it was started.
    """

    spec: Spec
    place: Place
    process: subprocess.Popen[str]
    url: str
    log: Path
    folder: Path
    start_s: float = 0.0
    before: set[str] = field(default_factory=set)

    def stop(self) -> int | None:
        """Ask it to end, and return its exit status; None if it did not."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int | None:
        """Wait for its end, and return its exit status; None if there is none."""
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return None

    def left(self) -> dict[str, list[str]]:
        """What is there after its end: processes, shared memory, files and sockets."""
        deadline_s = time.monotonic() + STOP_S / 4
        while self.place.processes() and time.monotonic() < deadline_s:
            time.sleep(0.1)
        left = self.place.left()
        new = sorted(_files(self.place.temporary) - self.before)
        sockets = [name for name in new if (self.place.temporary / name).is_socket()]
        left["files"] = [name for name in new if name not in sockets]
        left["sockets"] = sockets
        return {kind: names for kind, names in left.items() if names}


@contextmanager
def serving(spec: Spec) -> Iterator[Server]:
    """Start a server, wait until it answers, and remove what is left of it afterwards.

    Raises:
        RuntimeError: If it ended instead, or if vLLM without dpbal is not without it.
    """
    place = Place()
    try:
        server = _start(spec, place)
        began_s = time.monotonic()
        place.wait(lambda: _is_healthy(server), f"an answer, see {server.log}")
        server.start_s = time.monotonic() - began_s
        if spec.overrides is None and place.left()["segments"]:
            raise RuntimeError(f"dpbal is in vLLM's own server: {place.left()['segments']}")
        yield server
    finally:
        place.close()


def _start(spec: Spec, place: Place) -> Server:
    folder = model.write(place.temporary / "model", spec.is_moe, LENGTH, has_tokenizer=True)
    log = place.temporary / "server.log"
    log.touch()
    port = _free_port()
    served = (
        *(str(folder), "--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port)),
        *("--load-format", "dummy", "--enforce-eager", "--max-model-len", str(LENGTH)),
        *("--dtype", "bfloat16", "--data-parallel-size", str(spec.ranks)),
        *("--api-server-count", str(spec.api_servers), "--disable-uvicorn-access-log"),
        # as dpbal sets it for emulated GPUs, so that the other server does the same
        *("--no-async-scheduling", *spec.arguments),
    )
    environment = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
    }
    if spec.executor is Executor.emulated:
        served += ("--distributed-executor-backend", EXECUTOR, "--block-size", "16")
        if spec.overrides is None:
            environment[CONFIG] = str(_config(spec, place.temporary / "config.yaml"))
    else:
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
        environment["VLLM_CPU_KVCACHE_SPACE"] = "1"
    if spec.overrides is None:
        environment["VLLM_PLUGINS"] = ""  # none: only the emulated GPUs read the config
        command: tuple[str, ...] = ("vllm", "serve", *served)
    else:
        command = (COMMAND, *spec.profile, CAPACITY, *spec.overrides, "--", *served)
    before = _files(place.temporary)
    writing = ("sh", "-c", f'exec "$@" >{log} 2>&1', "sh")  # no pipe that fills in half an hour
    process = place.start(*writing, *command, **environment)
    return Server(spec, place, process, f"http://127.0.0.1:{port}", log, folder, before=before)


def _config(spec: Spec, file: Path) -> Path:
    """What emulated GPUs without dpbal read, which is the profile."""
    kind = "lockstep" if spec.is_moe else "independent"
    group = (f"group.kind={kind}", f"group.ranks={spec.ranks}")
    config = compose("backend=vllm", CAPACITY, "balancer=vllm_native", *group, *spec.profile)
    OmegaConf.save(OmegaConf.create(to_dict(config)), file)
    return file


def _is_healthy(server: Server) -> bool:
    if server.process.poll() is not None:
        raise RuntimeError(f"the server ended: {server.log.read_text()[-4000:]}")
    try:
        with urllib.request.urlopen(f"{server.url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def _files(folder: Path) -> set[str]:
    return {
        os.path.relpath(os.path.join(where, name), folder)
        for where, _, names in os.walk(folder)
        for name in names
    }
