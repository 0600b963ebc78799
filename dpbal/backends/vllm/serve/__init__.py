"""vLLM's server with a combination of dpbal's inside: the command, and what an operator meets.

* ``cli.py``: the command ``dpbal-serve``; ``arguments.py`` reads what is vLLM's in it.
* ``plan.py``: what would be started, and whether it can be; ``dry_run.py`` prints it.
* ``herding.py``: API servers that do not know of each other, and what to type against it.
* ``health.py``: what ``/dpbal/health`` answers; ``endpoints.py`` hands it to vLLM.
* ``drain.py``: an end that lets running requests finish; ``deaths.py``: that of a dead engine.
* ``logged.py``: what stands in the log.
"""
