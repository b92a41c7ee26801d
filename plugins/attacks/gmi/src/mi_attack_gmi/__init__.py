"""The attack GMI: generative model inversion, of classes and of masked images."""
