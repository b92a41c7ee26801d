"""A monitor of query streams that look like model inversion."""
