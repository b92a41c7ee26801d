"""The attack DeepInversion: pixels with the statistics that batch normalisation remembers."""
