"""Purification of answers by an autoencoder against model inversion."""
