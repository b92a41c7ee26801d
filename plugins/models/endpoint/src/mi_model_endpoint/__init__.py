"""Targets behind HTTP, and a small server to try an audit on."""
