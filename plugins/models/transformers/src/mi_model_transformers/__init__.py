"""Published text models as targets."""
