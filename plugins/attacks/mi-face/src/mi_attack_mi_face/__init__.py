"""The attack MI-Face: gradient descent on pixels."""
