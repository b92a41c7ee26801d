"""The attack PPDG-MI: pseudo-private data guide the prior of another attack."""
