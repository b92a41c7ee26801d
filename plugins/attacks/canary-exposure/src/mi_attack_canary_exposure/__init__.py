"""Planted secrets among others of their kind, ranked by likelihood."""
