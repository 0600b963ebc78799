"""Real vLLM engines: the plug-in, emulated GPUs, and the backend that replays a workload on them.

plugin.py           the entry point that vLLM calls in each of its processes
settings.py         what these are asked to do; refusals.py: what could not work with it
launch.py           what happens around the start of engines; hosts.py, children.py: where, in what
combination.py      what is balanced, and how, in words
acknowledgement.py  what travels with a request from its front end to its rank
cache_messages.py   what a rank tells front ends of its prefix cache, as both understand it
front_end/          which rank a request goes to
rank/               what a rank says of itself, and its budget
emulated/           an executor without GPUs, a model without weights
backend.py          the backend ``vllm``; runs/: one run of it; recorder.py: its engines' steps
serve/              ``dpbal-serve``
metrics/            what a server says of itself
costs.py            what all this adds to a step and to a choice; budget_costs.py: and a budget

Only this package imports vllm, and only in the modules that run inside vLLM's processes.
"""
