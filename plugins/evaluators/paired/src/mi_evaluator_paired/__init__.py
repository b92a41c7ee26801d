"""How like the very image is what was recovered of it?."""
