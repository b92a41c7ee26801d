"""Maximum a posteriori inversion of a sensitive column."""
