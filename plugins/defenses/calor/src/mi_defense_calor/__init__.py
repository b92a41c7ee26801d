"""A low-rank head and confidence adaptation against model inversion."""
