"""Removal of skip connections against model inversion."""
