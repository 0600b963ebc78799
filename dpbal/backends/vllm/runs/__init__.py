"""Runs of the backend: engines are started, requests replayed, and steps written down."""
