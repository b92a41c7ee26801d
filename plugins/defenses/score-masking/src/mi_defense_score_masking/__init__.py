"""Defenses that change what a classifier answers: rounding, cutting, tempering, noise."""
