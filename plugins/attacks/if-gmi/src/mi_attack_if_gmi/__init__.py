"""The attack IF-GMI: intermediate features of a StyleGAN."""
