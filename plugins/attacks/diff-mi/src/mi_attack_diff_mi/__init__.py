"""The attack Diff-MI: model inversion through a target-specific conditional diffusion model."""
