"""White-box attacks on a student of a target that only answers."""
