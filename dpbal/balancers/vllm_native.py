"""vLLM's own choice, made by vLLM itself."""

from __future__ import annotations

from dataclasses import dataclass

from dpbal.balancers.base import BALANCERS, Balancer
from dpbal.core import Request, View
from dpbal.errors import ConfigError


@BALANCERS.register("vllm_native")
@dataclass
class VllmNative(Balancer):
    """vLLM's front end is left alone, and chooses as it does without dpbal.

    Real engines only: it is what a run of ``backend=vllm`` is to be compared with. In the
    simulator the balancer ``vllm`` follows the same rule.

    Example:
        ``dpbal-run backend=vllm balancer=vllm_native``

    Reference: vLLM 0.32, ``v1/engine/core_client.py``, ``DPLBAsyncMPClient``.
    """

    chooses = False
    uses_signal = False
    uses_reports = False

    def choose(self, request: Request, view: View) -> int:
        """Never asked.

        Raises:
            ConfigError: Where the requests do not run on vLLM's engines.
        """
        raise ConfigError(
            "balancer vllm_native is vLLM itself, so it needs its engines: type backend=vllm, "
            "or balancer=vllm for the same rule in the simulator"
        )
