"""Defensive distillation against model inversion."""
