"""Runs of micore in MLflow."""
