"""timm classifiers as targets."""
