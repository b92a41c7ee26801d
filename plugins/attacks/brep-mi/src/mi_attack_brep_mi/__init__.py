"""The attack BREP-MI: label-only model inversion by repulsion from the boundary of a class."""
