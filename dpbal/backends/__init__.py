"""Where requests run: the simulator, and real vLLM engines."""

from dpbal.backends.base import BACKENDS, Backend, Outcome, Parts, Records
from dpbal.backends.simulator.simulator import Simulator
from dpbal.backends.vllm.backend import Vllm

__all__ = ["BACKENDS", "Backend", "Outcome", "Parts", "Records", "Simulator", "Vllm"]
