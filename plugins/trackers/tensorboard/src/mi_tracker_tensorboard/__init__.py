"""Runs of micore in TensorBoard."""
