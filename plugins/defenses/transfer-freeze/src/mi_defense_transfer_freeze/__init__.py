"""Transfer learning with frozen first layers against model inversion."""
