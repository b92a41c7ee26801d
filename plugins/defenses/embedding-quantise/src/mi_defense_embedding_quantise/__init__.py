"""Embeddings of few bits."""
