"""The attack MIRROR."""
