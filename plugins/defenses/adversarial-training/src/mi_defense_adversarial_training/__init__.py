"""Adversarial training, to be measured against model inversion."""
