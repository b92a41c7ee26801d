"""What can be learned of the classes from what was recovered."""
