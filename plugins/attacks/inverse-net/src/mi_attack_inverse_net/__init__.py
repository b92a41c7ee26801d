"""The attack of Yang et al.: a network that is trained to invert a target's truncated scores."""
