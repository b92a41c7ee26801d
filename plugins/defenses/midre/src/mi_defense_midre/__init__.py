"""Random erasing of training images against model inversion."""
