"""The attack P2I-MI: from predictions to latents of a StyleGAN, in one pass."""
