"""LinkTeller: edges from the influence of one node's features on another's answer."""
