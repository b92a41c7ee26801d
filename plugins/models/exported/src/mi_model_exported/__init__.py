"""Exported networks and functions of the user's as targets."""
