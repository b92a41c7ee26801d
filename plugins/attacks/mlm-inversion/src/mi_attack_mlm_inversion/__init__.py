"""What masked language models remember, by Gibbs sampling and pseudo-likelihood."""
