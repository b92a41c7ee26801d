"""Graph networks whose hidden features tell less of the edges (MC-GPB)."""
