"""Voiceprints and voices that are no longer those of their speakers."""
