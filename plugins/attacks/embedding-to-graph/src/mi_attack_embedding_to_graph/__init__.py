"""Edges from node embeddings, by a decoder that was learned on another graph."""
