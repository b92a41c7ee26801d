"""The attack PLG-MI: pseudo-label-guided model inversion."""
