"""Runs of the backend: engines are started, requests replayed, and steps written down.

* ``run.py``: one of them; ``server.py``: what its engines are started with.
* ``replay.py``: requests at their times; ``prompts.py``: what they ask.
* ``guard.py``: removes what a run that is killed could not.
"""
