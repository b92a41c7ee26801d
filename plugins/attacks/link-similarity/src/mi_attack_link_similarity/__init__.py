"""Link stealing from a graph network's answers."""
