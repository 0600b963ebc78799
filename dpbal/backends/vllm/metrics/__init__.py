"""What a server says of its balance in ``/metrics``, beside vLLM's own.

* ``families.py``: all metrics, with what they mean, in one table.
* ``counts.py``: what a front end counts as it dispatches, in plain numbers.
* ``endings.py``: how requests ended, by what an engine says.
* ``values.py``: how numbers get into prometheus_client, and only where they have changed.
* ``ranks.py``: what is known of each rank at one moment.
* ``telemetry.py``: what ranks count, on its way to front ends.
* ``exporter.py``: brings the metrics up to date, once a second.
"""
