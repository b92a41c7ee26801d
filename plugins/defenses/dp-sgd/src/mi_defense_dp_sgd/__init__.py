"""Differentially private training against model inversion."""
