"""Does a vision-language model see the same person or object in a reconstruction?."""
