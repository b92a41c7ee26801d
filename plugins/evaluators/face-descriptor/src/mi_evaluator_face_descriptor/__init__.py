"""An evaluator for micore: dlib's 128-d face descriptor, independent of any target."""
