"""Engines without GPUs: steps that take the time the profile says, and models without weights."""

EXECUTOR = "dpbal.backends.vllm.emulated.executor.EmulatedExecutor"
"""Path of the executor without a model, as vLLM is told."""
