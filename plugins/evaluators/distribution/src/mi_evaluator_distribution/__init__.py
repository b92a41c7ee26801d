"""Do all reconstructions together look like the private data?."""
