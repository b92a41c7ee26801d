"""Embeddings with noise."""
