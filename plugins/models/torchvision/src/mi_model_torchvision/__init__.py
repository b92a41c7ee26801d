"""Torchvision classifiers as targets."""
