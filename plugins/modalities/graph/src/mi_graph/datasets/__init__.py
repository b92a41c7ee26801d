"""Data sets of graphs."""
