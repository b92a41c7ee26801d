"""Prompts from a language model's next-token distribution or from its outputs."""
