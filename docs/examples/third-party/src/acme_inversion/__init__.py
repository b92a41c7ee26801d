"""An attack, a defense, an evaluator and a data set of another publisher."""
