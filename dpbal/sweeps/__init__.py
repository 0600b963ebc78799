"""Sweeps: many runs from one command, none of them twice.

``jobs`` turns what is swept into jobs, ``draws`` is the random search, ``finished`` finds the jobs
that have a result, ``worker`` takes them to other processes, ``watch`` says how far they are,
``table`` puts all results into one, ``overview`` prints a small one, and ``sweep`` is the order of
these.
"""
