"""Distance correlation between inputs and a hidden layer, against model inversion."""
