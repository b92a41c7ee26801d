"""The attack GEIA: a decoder that writes the sentence behind an embedding."""
