"""Whose voice is it? Verification of what was recovered by an independent speaker encoder."""
