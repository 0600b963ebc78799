"""A fast simulator of a DP group; the ranks are compiled, the policies are Python objects.

layout.py     the records that the compiled core works on
memory.py     makes and enlarges them
kv_cache.py   blocks, prefix hashes, eviction
queues.py     a rank's inbox and waiting queue
scheduler.py  one rank: continuous batching, chunked prefill, preemption
reports.py    load reports and the transport's timing
vectors.py    what ranks tell the budget
engine.py     the clock: independent and lockstep groups
simulator.py  the backend: the loop over arrivals
"""
