"""Targets behind HTTP."""
