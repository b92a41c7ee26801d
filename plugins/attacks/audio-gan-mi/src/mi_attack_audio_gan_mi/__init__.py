"""Model inversion of classifiers of speech in the latents of a generator of speech."""
