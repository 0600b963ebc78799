"""Compares finished runs: effects of combinations with intervals over replicates, on equal terms.

``load`` finds and reads runs, ``grouping`` sorts them into combinations under equal settings,
``baseline`` picks what they are compared with, ``effects`` pairs two of them and ``statistics``
has the intervals, ``remarks`` says what a reader must know, ``table`` and ``formats`` show it.
"""
