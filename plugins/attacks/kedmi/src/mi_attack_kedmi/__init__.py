"""The attack KED-MI: knowledge-enriched distributional model inversion."""
