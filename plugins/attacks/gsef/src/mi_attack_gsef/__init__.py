"""GSEF: edges from the explanations of a graph network's answers."""
