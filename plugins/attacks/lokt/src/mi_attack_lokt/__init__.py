"""The attack LOKT: label-only model inversion via knowledge transfer."""
