"""The attack SMILE: a surrogate of few queries, then a search without gradients."""
