"""What runs in a front end: which rank a request goes to, and what ranks are known to hold.

* ``client.py``: vLLM's client, which asks ``front_end.py`` for the rank.
* ``prefixes.py``: what is known of a prompt, with the hashes of its blocks.
* ``indexing.py``: how prefixes come to be known; ``kv_events.py``: what ranks say of them.
"""
