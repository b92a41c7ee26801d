"""Trapdoors against model inversion."""
