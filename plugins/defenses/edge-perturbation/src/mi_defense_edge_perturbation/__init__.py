"""Defenses that train a graph network, and answer, on changed edges."""
