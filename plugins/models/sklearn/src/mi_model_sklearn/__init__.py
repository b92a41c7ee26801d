"""Estimators of scikit-learn as targets."""
