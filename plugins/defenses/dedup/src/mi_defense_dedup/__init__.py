"""Texts once each: duplicates are removed before the training."""
