"""GraphMI: the edges of a training graph by gradient descent on relaxed edges."""
