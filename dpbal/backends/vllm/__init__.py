"""Real vLLM engines: the plug-in, emulated GPUs, and the backend that replays a workload on them.

Only this package imports vllm, and only in the modules that run inside vLLM's processes.
"""
