"""Noise masking against recognisers of speech."""
