"""Bilateral dependency optimisation against model inversion."""
