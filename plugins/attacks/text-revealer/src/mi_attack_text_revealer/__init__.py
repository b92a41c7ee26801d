"""Text Revealer and gradient-guided token search on text classifiers."""
