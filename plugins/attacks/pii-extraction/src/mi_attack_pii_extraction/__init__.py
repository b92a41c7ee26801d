"""Personal data of a language model's training texts: extracted, reconstructed, inferred."""
