"""Inversion of embeddings with means made without the target, and few pairs or queries: an attack for micore."""
