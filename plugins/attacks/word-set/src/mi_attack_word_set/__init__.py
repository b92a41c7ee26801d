"""Which words stand in a text, from its embedding: an attack for micore."""
