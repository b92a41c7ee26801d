"""A small server that speaks the Open Inference Protocol, to try an audit of a remote target on."""
