"""Fits a profile: from steps that a running engine measured, and from tables of its operators."""
