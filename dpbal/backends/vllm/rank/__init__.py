"""What runs in an engine: what a rank says of itself, and how it keeps to the group's budget.

* ``scheduler.py``: vLLM's schedulers with all of it, layer upon layer: ``counting.py``,
  ``paced.py``, ``telling.py``.
* ``tally.py``: what a scheduler holds; ``line.py``, ``line_walk.py``: the requests that wait in it.
* ``pacing.py``: how much prefill a step may hold; ``waves.py``: where all ranks meet.
* ``kv_events.py``: what its prefix cache holds, for front ends; ``cached_blocks.py``: by events.
"""
