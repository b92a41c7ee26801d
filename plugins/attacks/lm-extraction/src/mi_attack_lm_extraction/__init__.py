"""Texts that a language model writes, ranked by how much they look learnt."""
