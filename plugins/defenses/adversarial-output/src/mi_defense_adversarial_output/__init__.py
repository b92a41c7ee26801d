"""Adversarial noise on answers against model inversion."""
