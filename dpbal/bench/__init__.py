"""The command ``dpbal-bench``: how fast simulator, dispatch, indexers and transports are.

* ``cli.py``: the command line; ``commands.py``: what each command does with it.
* ``simulator.py``: requests and rank-steps a second, by group size, kind and balancer.
* ``scale.py``: 10,000 to a million requests, each in a process of its own.
* ``dispatch.py``: microseconds of a whole dispatch, by balancer and group size.
* ``subjects.py``: what is timed there, dpbal's dispatchers and vLLM's loop; ``traffic.py``: what
  happens between two dispatches.
* ``prefix.py``: microseconds of indexes of prefix blocks, and their memory.
* ``shm.py``: microseconds of reports through shared memory; ``torn.py``: torn reads there.
* ``transport.py``: what every transport costs; ``transport_case.py``: what that is;
  ``transport_cell.py``: one of them with one number of ranks; ``transport_ranks.py``: the ranks'
  processes; ``merged_7379.py``: what SGLang's PR did in a dispatch; ``timing.py``: what was
  measured, as a file for the simulator.
* ``machine.py``: where it was measured, and how busy that was; ``tables.py``: the tables.
"""
