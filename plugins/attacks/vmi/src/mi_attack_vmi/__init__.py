"""The attack VMI: variational model inversion."""
