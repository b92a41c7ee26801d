"""Graph networks on noisy sums over neighbours, with edge differential privacy (GAP)."""
