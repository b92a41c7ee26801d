"""Audio for micore: waveforms in [-1, 1], speech networks, voices."""
