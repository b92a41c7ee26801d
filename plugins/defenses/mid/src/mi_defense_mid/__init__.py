"""Mutual-information regularisation by a variational bottleneck, against model inversion."""
