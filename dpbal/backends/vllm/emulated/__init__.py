"""Engines without GPUs: steps that take the time the profile says, and models without weights.

* ``executor.py``: stands for a rank's workers; ``batch.py``: what a step of it holds.
* ``device.py``: when a step starts and ends; ``barrier.py``, ``posts.py``: in a lockstep group.
* ``model.py``, ``tokenizer.py``: a model's folder, and what takes text.
"""

EXECUTOR = "dpbal.backends.vllm.emulated.executor.EmulatedExecutor"
"""Path of the executor without a model, as vLLM is told."""


def is_emulated_by(executor: type | str | None) -> bool:
    """Whether an executor, or the path of one, is dpbal's without a model."""
    if isinstance(executor, type):
        return any(f"{kind.__module__}.{kind.__qualname__}" == EXECUTOR for kind in executor.mro())
    return executor == EXECUTOR
