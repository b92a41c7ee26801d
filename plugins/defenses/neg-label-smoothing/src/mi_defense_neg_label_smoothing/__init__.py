"""Negative label smoothing against model inversion."""
