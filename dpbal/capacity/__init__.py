"""Capacity: the highest load at which a combination still meets its objectives.

``bisection`` closes in on it, ``search`` runs a combination at each load on the way.
"""
