"""Next-token distributions cut to the most likely tokens."""
